"""Public programs by name: a new one is one reader and one entry here."""

from train.released.frame_programs import read_netvlad, read_seqmatchnet, read_seqnet, read_vg_transformers
from train.released.reading import Program
from train.released.window_programs import read_sta, read_timesformer

# The classifiers that backbones were trained with, and SeqPool's attention where it is not the pooling.
_CLASSIFIERS = (r".*attention_pool\.", r"(.*\.)?(fc|head)\.(weight|bias)$")

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
