"""The entries of torch's OpInfo that hal does not answer to, by reason, so that they can be counted.

A name ending in `*` stands for all that begin so. A test sees to it that each entry is either here or a line of
`opinfo_map`.
"""

from __future__ import annotations

MISSING = "hal has no such function, or none with a line here"

ABSENT: dict[str, str] = {
    "random numbers differ between generators": """
        cauchy exponential geometric log_normal normal normal:* uniform randn randn_like rand_like randint randint_like
        multinomial bernoulli nn.functional.rrelu nn.functional.feature_alpha_dropout:*
        nn.functional.fractional_max_pool*
    """,
    "the contents are not defined": """
        empty empty_like empty_permuted empty_strided new_empty new_empty_strided resize_ resize_as_ byte
    """,
    "how elements lie in memory is the backend's affair": """
        as_strided as_strided:partial_views as_strided_copy as_strided_scatter
    """,
    "concerns torch's own machinery": """
        resolve_conj resolve_neg jiterator_* hash_tensor _chunk_cat _unsafe_masked_index
        _unsafe_masked_index_put_accumulate _segment_reduce:* native_dropout_backward nonzero_static
        torch.ops.aten._safe_softmax.default _upsample_bilinear2d_aa scalar_tensor
    """,
    "hal has no sparse tensors": "sparse.* to_sparse",
    "hal has no complex arithmetic beyond what the array standard asks for": """
        view_as_complex complex polar angle sgn cdouble cfloat chalf isreal
    """,
    "hal has no matrix factorisations": """
        cholesky cholesky_inverse cholesky_solve geqrf lu lu_solve lu_unpack logdet matrix_exp ormqr qr svd svd_lowrank
        pca_lowrank pinverse triangular_solve norm:nuc linalg.cholesky* linalg.cond linalg.det linalg.eig*
        linalg.householder_product linalg.inv* linalg.ldl_* linalg.lstsq* linalg.lu* linalg.matrix_norm
        linalg.matrix_power linalg.matrix_rank* linalg.multi_dot linalg.norm* linalg.pinv* linalg.qr linalg.slogdet
        linalg.solve* linalg.svd* linalg.tensorinv linalg.tensorsolve linalg.vander
    """,
    "hal has no Fourier transforms and windows": "fft.* stft signal.windows.*",
    "hal has no special functions beyond erf": """
        special.* digamma erfinv i0 igamma igammac lgamma mvlgamma:* polygamma:* sinc xlogy
    """,
    "hal has no masked reductions": "masked.*",
    "hal.put writes slices along an axis, torch's elements of the flattened tensor": "put",
    MISSING: """
        addbmm addr atleast_1d atleast_2d atleast_3d block_diag bucketize cartesian_prod cdist column_stack combinations
        corrcoef cov cummax cummin cumulative_trapezoid deg2rad diag_embed diagflat diagonal_scatter dist dsplit
        float_power fliplr flipud fmax fmin frexp gradient heaviside histc histogram histogramdd hsplit index_reduce:*
        isin isneginf isposinf kron kthvalue ldexp logaddexp2 logcumsumexp logspace logspace:* masked_scatter mode msort
        nanmean nanmedian nanquantile nansum quantile rad2deg renorm rot90 scatter_reduce:* std_mean
        std_mean:unbiased sum_to_size trapezoid trapz unfold unfold_copy unique_consecutive vsplit grid_sampler_*
        nn.functional.upsample_*
        nn.functional.linear_cross_entropy nn.functional.linear_cross_entropy:*
        nn.functional.max_unpool*
        nn.functional.multi_head_attention_forward nn.functional.triplet_margin_with_distance_loss
    """,
}


def reason(key: str) -> str | None:
    """Why hal does not answer to this entry, or None."""
    for why, names in ABSENT.items():
        for name in names.split():
            if key == name or (name.endswith("*") and key.startswith(name[:-1])):
                return why
    return None
