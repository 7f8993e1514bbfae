"""The closed list of what a graph may call. Names only, no torch.

A target is written as one dotted name:

    torch.relu, torch.nn.functional.gelu, torch.linalg.norm    a function
    torch.Tensor.view                                          a method: the first argument is the tensor
    torch.Tensor.T.__get__                                     an attribute of a tensor
    operator.add, operator.setitem                             an operator of Python
    synth.identity                                             nn.Identity, which makes no call of its own

What is not here: anything that reads or writes a file, sets a state of the process, compiles, calls Python
back, hands out memory (`data_ptr`, `set_`, `as_strided`), or returns sizes that depend on values (`nonzero`).
A name that the installed torch lacks cannot be called; graph/rebuild.py leaves it out.
"""

from __future__ import annotations

IDENTITY = "synth.identity"

# A function of torch and a method of tensors alike.
_BOTH = """
    abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr adjoint all amax amin aminmax angle
    any arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argsort asin asinh atan atan2 atanh
    baddbmm bernoulli bincount bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
    bitwise_xor bmm broadcast_to ceil cholesky chunk clamp clamp_max clamp_min clip clone conj conj_physical
    copysign corrcoef cos cosh count_nonzero cov cross cummax cummin cumprod cumsum deg2rad det detach diag
    diag_embed diagflat diagonal diagonal_scatter diff digamma dist div divide dot dsplit eq erf erfc erfinv
    exp exp2 expm1 fix flatten flip fliplr flipud float_power floor floor_divide fmax fmin fmod frac frexp
    gather ge ger greater greater_equal gt hardshrink heaviside histc hsplit hypot i0 igamma igammac imag
    index_add index_copy index_fill index_put index_reduce index_select inner inverse isclose isfinite isin
    isinf isnan isneginf isposinf isreal istft kron kthvalue ldexp le lerp less less_equal lgamma log log10
    log1p log2 log_softmax logaddexp logaddexp2 logcumsumexp logdet logical_and logical_not logical_or
    logical_xor logit logsumexp lt masked_fill masked_scatter matmul matrix_exp matrix_power max maximum mean
    median min minimum mm mode moveaxis movedim msort mul multinomial multiply mv mvlgamma nan_to_num nanmean
    nanmedian nanquantile nansum narrow ne neg negative nextafter norm not_equal outer permute pinverse
    polygamma positive pow prelu prod put qr quantile rad2deg ravel real reciprocal relu remainder renorm
    repeat_interleave reshape resolve_conj resolve_neg roll rot90 round rsqrt scatter scatter_add
    scatter_reduce select select_scatter sgn sigmoid sign signbit sin sinc sinh slice_scatter slogdet softmax
    sort split split_with_sizes sqrt square squeeze std stft sub subtract sum svd swapaxes swapdims t take
    take_along_dim tan tanh tensor_split tile topk trace transpose tril triu true_divide trunc unbind
    unflatten unsafe_chunk unsafe_split unsqueeze var vdot vsplit where xlogy
""".split()  # noqa: SIM905

_TORCH = """
    adaptive_avg_pool1d adaptive_max_pool1d alpha_dropout arange as_tensor asarray atleast_1d atleast_2d
    atleast_3d avg_pool1d bartlett_window batch_norm bilinear binary_cross_entropy_with_logits
    blackman_window block_diag broadcast_tensors bucketize cartesian_prod cat cdist celu celu_ chain_matmul
    channel_shuffle column_stack combinations complex concat concatenate constant_pad_nd conv1d conv2d conv3d
    conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution cosine_embedding_loss
    cosine_similarity ctc_loss cumulative_trapezoid dropout dropout_ dstack einsum embedding embedding_bag
    empty empty_like eye fake_quantize_per_channel_affine fake_quantize_per_tensor_affine
    feature_alpha_dropout feature_dropout frobenius_norm full full_like gradient grid_sampler group_norm gru
    gru_cell hamming_window hann_window hinge_embedding_loss hstack instance_norm kaiser_window kl_div
    layer_norm linspace logspace lstm lstm_cell margin_ranking_loss max_pool1d max_pool1d_with_indices
    max_pool2d max_pool3d meshgrid native_batch_norm native_dropout native_group_norm native_layer_norm
    norm_except_dim normal nuclear_norm numel ones ones_like pairwise_distance pdist pixel_shuffle
    pixel_unshuffle poisson poisson_nll_loss polar rand rand_like randint randint_like randn randn_like
    randperm range relu_ rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell row_stack rrelu rrelu_ rsub
    scalar_tensor searchsorted selu selu_ sigmoid_ stack std_mean tanh_ tensor tensordot threshold threshold_
    trapezoid trapz tril_indices triplet_margin_loss triu_indices vander var_mean view_as_complex
    view_as_real vstack zeros zeros_like _weight_norm
""".split()  # noqa: SIM905

_METHODS = """
    bfloat16 bool byte cdouble cfloat char contiguous copy_ cpu cuda double expand expand_as fill_
    fill_diagonal_ float half int long mH masked_fill_ new_empty new_full new_ones new_tensor new_zeros
    normal_ random_ repeat reshape_as short sum_to_size to type type_as unfold uniform_ view view_as zero_
    bernoulli_ exponential_ cauchy_ geometric_ log_normal_
""".split()  # noqa: SIM905

# Written in place by the method with an underscore behind its name.
_IN_PLACE = """
    abs acos acosh add addbmm addcdiv addcmul addmm addmv addr asin asinh atan atan2 atanh baddbmm
    bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp clamp_max clamp_min clip copysign cos cosh
    cumprod cumsum deg2rad detach digamma div divide eq erf erfc erfinv exp exp2 expm1 fix floor floor_divide
    fmod frac ge gt hypot index_add index_copy index_fill index_put index_reduce le lerp lgamma log log10
    log1p log2 logical_and logical_not logical_or logical_xor logit lt masked_scatter mul multiply nan_to_num
    ne neg negative pow put rad2deg reciprocal relu remainder renorm round rsqrt scatter scatter_add
    scatter_reduce sgn sigmoid sign sin sinc sinh sqrt square squeeze sub subtract swapaxes swapdims t tan
    tanh transpose tril triu true_divide trunc unsqueeze xlogy
""".split()  # noqa: SIM905

_ATTRIBUTES = "H T data imag mH mT real".split()  # noqa: SIM905

_FUNCTIONAL = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool1d_with_indices adaptive_max_pool2d adaptive_max_pool2d_with_indices adaptive_max_pool3d
    adaptive_max_pool3d_with_indices affine_grid alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm
    bilinear binary_cross_entropy binary_cross_entropy_with_logits celu celu_ channel_shuffle conv1d conv2d
    conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d cosine_embedding_loss
    cosine_similarity cross_entropy ctc_loss dropout dropout1d dropout2d dropout3d elu elu_ embedding
    embedding_bag feature_alpha_dropout fold fractional_max_pool2d fractional_max_pool2d_with_indices
    fractional_max_pool3d fractional_max_pool3d_with_indices gaussian_nll_loss gelu glu grid_sample
    group_norm gumbel_softmax hardshrink hardsigmoid hardswish hardtanh hardtanh_ hinge_embedding_loss
    huber_loss instance_norm interpolate kl_div l1_loss layer_norm leaky_relu leaky_relu_ linear
    local_response_norm log_softmax logsigmoid lp_pool1d lp_pool2d lp_pool3d margin_ranking_loss max_pool1d
    max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices
    max_unpool1d max_unpool2d max_unpool3d mish mse_loss multi_head_attention_forward multi_margin_loss
    multilabel_margin_loss multilabel_soft_margin_loss native_channel_shuffle nll_loss normalize one_hot pad
    pairwise_distance pdist pixel_shuffle pixel_unshuffle poisson_nll_loss prelu relu relu6 relu_ rms_norm
    rrelu rrelu_ scaled_dot_product_attention selu selu_ sigmoid silu smooth_l1_loss soft_margin_loss softmax
    softmin softplus softshrink softsign tanh tanhshrink threshold threshold_ triplet_margin_loss unfold
    upsample upsample_bilinear upsample_nearest
""".split()  # noqa: SIM905

_LINALG = """
    cholesky cond cross det diagonal eig eigh eigvals eigvalsh householder_product inv lstsq lu lu_factor
    lu_solve matmul matrix_exp matrix_norm matrix_power multi_dot norm pinv qr slogdet solve
    solve_triangular svd svdvals tensorinv tensorsolve vander vecdot vector_norm
""".split()  # noqa: SIM905

_SPECIAL = """
    bessel_j0 bessel_j1 digamma entr erf erfc erfcx erfinv exp2 expit expm1 gammainc gammaincc gammaln i0 i0e
    i1 i1e log1p log_ndtr log_softmax logit logsumexp multigammaln ndtr ndtri polygamma psi round sinc
    softmax xlog1py xlogy zeta
""".split()  # noqa: SIM905

_FFT = """
    fft fft2 fftfreq fftn fftshift hfft hfft2 hfftn ifft ifft2 ifftn ifftshift ihfft ihfft2 ihfftn irfft
    irfft2 irfftn rfft rfft2 rfftfreq rfftn
""".split()  # noqa: SIM905

# What torch.nn.functional calls itself, where Dynamo looks into it.
_NN = """
    cross_entropy_loss elu_ gelu_ hardsigmoid_ hardswish_ hardtanh_ leaky_relu_ log_sigmoid mish mish_
    nll_loss_nd pad relu6 relu6_ silu silu_ softplus softshrink upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa
""".split()  # noqa: SIM905

_OPERATOR = """
    abs add and_ eq floordiv ge getitem gt iadd iand ifloordiv ilshift imatmul imod imul invert ior ipow
    irshift isub itruediv ixor le lshift lt matmul mod mul ne neg or_ pos pow rshift setitem sub truediv xor
""".split()  # noqa: SIM905

METHOD = "torch.Tensor."
GETTER = ".__get__"

TARGETS: tuple[str, ...] = (
    *(f"torch.nn.functional.{name}" for name in _FUNCTIONAL),
    *(f"torch.{name}" for name in (*_BOTH, *_TORCH)),
    *(f"torch.linalg.{name}" for name in _LINALG),
    *(f"torch.special.{name}" for name in _SPECIAL),
    *(f"torch.fft.{name}" for name in _FFT),
    *(f"torch._C._nn.{name}" for name in _NN),
    *(f"{METHOD}{name}" for name in dict.fromkeys((*_BOTH, *_METHODS, *(f"{n}_" for n in _IN_PLACE)))),
    *(f"{METHOD}{name}{GETTER}" for name in _ATTRIBUTES),
    *(f"operator.{name}" for name in _OPERATOR),
    IDENTITY,
)
"""Every target. A function that has two names is recorded by the one that comes first."""

KNOWN = frozenset(TARGETS)
