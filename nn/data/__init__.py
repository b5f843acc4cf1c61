"""Data: datasets, samplers and the loader, with the habits of torch.utils.data and torchvision.datasets."""

from nn.data import transforms
from nn.data.cifar import CIFAR10
from nn.data.collate import default_collate
from nn.data.dataset import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset, random_split
from nn.data.digits import Digits
from nn.data.files import ArrayDataset, ImageFolder, TextLines
from nn.data.images import ImageDataset
from nn.data.loader import DataLoader
from nn.data.mnist import MNIST, FashionMNIST
from nn.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

__all__ = [
    "CIFAR10",
    "MNIST",
    "ArrayDataset",
    "BatchSampler",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "ImageDataset",
    "ImageFolder",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "TextLines",
    "WeightedRandomSampler",
    "default_collate",
    "random_split",
    "transforms",
]
