"""Public programs by name: a new one is one reader and one entry here."""

from train.released.frame_programs import read_netvlad, read_seqmatchnet, read_seqnet, read_vg_transformers
from train.released.place_programs import (
    read_boq,
    read_cosplace,
    read_eigenplaces,
    read_jist,
    read_megaloc,
    read_mixvpr,
    read_salad,
)
from train.released.reading import Program
from train.released.window_programs import read_sta, read_timesformer

# The classifiers that backbones were trained with, and SeqPool's attention where it is not the pooling.
_CLASSIFIERS = (r".*attention_pool\.", r"(.*\.)?(fc|head)\.(weight|bias)$")

_GITHUB = "https://github.com"
_PLACES = ("backbone.", "aggregator.")

PROGRAMS: dict[str, Program] = {
    "vg-transformers": Program(
        "SeqVLAD, NetVLAD, GeM, CLS and SeqPool of Mereu et al., and the SeqVLAD of Zhang et al.",
        r"encoder\.(?!spatial|model)",
        ("encoder.", "pooling.", "aggregator."),
        read_vg_transformers,
        unused=(*_CLASSIFIERS, r"encoder\.pooler\."),
    ),
    "sta": Program(
        "STA of Zhang et al.", r"encoder\.spatial\.", (), read_sta, unused=_CLASSIFIERS, protocol="msls-sta"
    ),
    "timesformer": Program(
        "TimeSformer of Bertasius et al., also inside vg-transformers",
        r"(encoder\.model\.|model\.)?time_embed$",
        (),
        read_timesformer,
        unused=_CLASSIFIERS,
    ),
    "netvlad": Program(
        "NetVLAD in PyTorch, with its whitened PCA", r"pool\.centroids$", ("encoder.", "pool.", "WPCA."), read_netvlad
    ),
    "seqnet": Program(
        "SeqNet of Garg and Milford", r"pool\.0\.conv\.", ("pool.0.conv.",), read_seqnet, needs_frames=True
    ),
    "seqmatchnet": Program(
        "SeqMatchNet of Garg et al.", r"pool\.(module\.)?1\.conv\.", ("pool.",), read_seqmatchnet, needs_frames=True
    ),
    "salad": Program(
        "SALAD of Izquierdo and Civera",
        r"aggregator\.cluster_features\.",
        _PLACES,
        read_salad,
        protocol="own",
        address=f"{_GITHUB}/serizba/salad/releases/download/v1.0.0/dino_salad.ckpt",
    ),
    "cliquemining": Program(
        "CliqueMining of Izquierdo and Civera",
        r"aggregator\.cluster_features\.",
        _PLACES,
        read_salad,
        protocol="own",
        page=f"{_GITHUB}/serizba/cliquemining",
    ),
    "megaloc": Program(
        "MegaLoc of Berton and Masone",
        r"aggregator\.agg\.cluster_features\.",
        _PLACES,
        read_megaloc,
        protocol="own",
        address=f"{_GITHUB}/gmberton/MegaLoc/releases/download/v1.0/megaloc.torch",
    ),
    "boq": Program(
        "Bag of Queries of Ali-bey et al.",
        r"aggregator\.boqs\.",
        _PLACES,
        read_boq,
        protocol="own",
        address=f"{_GITHUB}/amaralibey/Bag-of-Queries/releases/download/v1.0/dinov2_12288.pth",
    ),
    "mixvpr": Program(
        "MixVPR of Ali-bey et al.",
        r"aggregator\.channel_proj\.",
        _PLACES,
        read_mixvpr,
        unused=_CLASSIFIERS,
        protocol="own",
        page=f"{_GITHUB}/amaralibey/MixVPR",
    ),
    "cosplace": Program(
        "CosPlace of Berton et al.",
        r"aggregation\.1\.p$",
        ("backbone.", "aggregation."),
        read_cosplace,
        protocol="own",
        address=f"{_GITHUB}/gmberton/CosPlace/releases/download/v1.0/ResNet50_2048_cosplace.pth",
    ),
    "eigenplaces": Program(
        "EigenPlaces of Berton et al.",
        r"aggregation\.1\.p$",
        ("backbone.", "aggregation."),
        read_eigenplaces,
        protocol="own",
        address=f"{_GITHUB}/gmberton/EigenPlaces/releases/download/v1.0/ResNet50_2048_eigenplaces.pth",
    ),
    "jist": Program(
        "JIST of Berton et al., with its generalised mean",
        r"seq_gem\.p$",
        ("model.", "seq_gem."),
        read_jist,
        page=f"{_GITHUB}/ga1i13o/JIST",
    ),
}


def likely_programs(keys: list[str]) -> list[str]:
    """List the programs that a file's keys may be of, the likeliest first.

    Example:
        >>> likely_programs(["encoder.spatial.classifier.norm.weight"])
        ['sta']
    """
    # The mark of vg-transformers is the most general, so it comes last.
    names = [name for name, program in PROGRAMS.items() if program.recognises(keys)]
    return sorted(names, key=lambda name: name == "vg-transformers")
