"""Well-known networks, ready to train; the layouts are torchvision's where it has the network, so its weights load."""

from nn.models.gpt import GPT
from nn.models.language import LSTMLanguageModel
from nn.models.mobilenet import MobileNetV2, mobilenet_v2
from nn.models.resnet import ResNet, resnet18, resnet34, resnet50
from nn.models.small import MLP, LeNet5, TutorialCNN
from nn.models.vgg import VGG, vgg11, vgg16
from nn.models.vit import VisionTransformer, vit_b_16

__all__ = [
    "GPT", "MLP", "VGG", "LSTMLanguageModel", "LeNet5", "MobileNetV2", "ResNet", "TutorialCNN", "VisionTransformer",
    "mobilenet_v2", "resnet18", "resnet34", "resnet50", "vgg11", "vgg16", "vit_b_16",
]  # fmt: skip
