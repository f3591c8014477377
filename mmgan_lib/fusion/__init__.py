"""Fusions of the vectors of several modalities into one that they share.

All fusions are made and called alike: ``fusion = FUSIONS[name](dims, out_dim)`` and ``fusion(inputs, mask)``, with a
vector (B, D_m) for each modality and a mask (B, M) that tells which a sample has. With ``out_dim`` linear layers bring
any lengths to that one; without it, what comes out is the strategy's raw vector, if it has one.
"""

from mmgan_lib.fusion.attention import CrossAttention
from mmgan_lib.fusion.base import Fusion, modality_dropout
from mmgan_lib.fusion.experts import Cluster, ProductOfExperts, kmeans
from mmgan_lib.fusion.multiplicative import Bilinear, FiLM, Gated, LowRank, TensorFusion
from mmgan_lib.fusion.simple import Concat, LateAverage, Mean, Product, Sum

#: name → the strategy's class
FUSIONS: dict[str, type[Fusion]] = {
    "concat": Concat,
    "mean": Mean,
    "sum": Sum,
    "product": Product,
    "gated": Gated,
    "bilinear": Bilinear,
    "tensor": TensorFusion,
    "low_rank": LowRank,
    "film": FiLM,
    "cross_attention": CrossAttention,
    "product_of_experts": ProductOfExperts,
    "cluster": Cluster,
    "late_average": LateAverage,
}

__all__ = [
    "FUSIONS",
    "Bilinear",
    "Cluster",
    "Concat",
    "CrossAttention",
    "FiLM",
    "Fusion",
    "Gated",
    "LateAverage",
    "LowRank",
    "Mean",
    "Product",
    "ProductOfExperts",
    "Sum",
    "TensorFusion",
    "kmeans",
    "modality_dropout",
]
