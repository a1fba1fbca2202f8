"""Every command of `seqdata` by name: where its function is, and what is said about it before that is imported."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Command:
    """One command: where its function is, and what is said about it before that is imported."""

    target: str
    """Module and function, as `package.module:function`."""
    help: str
    """Line in the list of commands: the first line of the function's docstring."""
    example: str
    """A line to paste, below the command's own help."""
    epilog: str | None = None
    """Lines below the example."""
    hidden: bool = False
    """Whether the list of commands leaves it out."""
    after_interrupt: str = "run the same command again to continue"
    """What to do after Ctrl-C."""
    makes: bool = False
    """Whether it makes something that lasts: then the time that it took is printed, and `next`."""
    next: str = ""
    """Command that takes what this one made."""

    @property
    def function(self) -> Callable[..., None]:
        """The function, its module imported."""
        module, _, name = self.target.partition(":")
        function: Callable[..., None] = getattr(import_module(module), name)
        return function


BUILD = "build"
INDEX_COMMANDS = {
    BUILD: Command(
        "cli.index.build:index",
        "Build a version of a place index from a run and a dataset.",
        "seqdata index datasets/msls --run runs/seqvlad --pca 4096",
        epilog="Versions: seqdata index merge | append | list | show | diff | verify | tag | rollback | gc, each with "
        "--help.",
        makes=True,
        next="seqdata eval",
    ),
    "merge": Command(
        "cli.index.append:merge",
        "Join the parts that seqdata index --shard-range i/N wrote.",
        "seqdata index merge --index indexes/seqvlad",
        makes=True,
        next="seqdata eval",
    ),
    "append": Command(
        "cli.index.append:append",
        "Add the new windows of a dataset to its index.",
        "seqdata index append datasets/msls --index indexes/seqvlad",
        makes=True,
        next="seqdata index list",
    ),
    "list": Command(
        "cli.index.versions:list_",
        "List the versions of an index, oldest first.",
        "seqdata index list indexes/seqvlad",
    ),
    "show": Command(
        "cli.index.versions:show",
        "Print the inputs of a version and what was measured on it.",
        "seqdata index show latest --index indexes/seqvlad",
    ),
    "diff": Command(
        "cli.index.versions:diff",
        "Print the differences between two versions.",
        "seqdata index diff latest stable --index indexes/seqvlad",
    ),
    "verify": Command(
        "cli.index.versions:verify",
        "Check every file of a version, or of all, against its hash.",
        "seqdata index verify --index indexes/seqvlad",
    ),
    "tag": Command(
        "cli.index.versions:tag",
        "Name a version; gc keeps what has a name.",
        "seqdata index tag stable latest --index indexes/seqvlad",
    ),
    "rollback": Command(
        "cli.index.versions:rollback",
        "Make an earlier version the latest.",
        "seqdata index rollback --index indexes/seqvlad",
    ),
    "gc": Command(
        "cli.index.versions:gc",
        "Delete versions that are neither latest nor tagged.",
        "seqdata index gc indexes/seqvlad --dry-run",
    ),
}
COMMANDS = {
    "init": Command(
        "cli.start.init:init",
        "Write a commented seqdata.toml into the current folder.",
        "seqdata init --raw raw --out .",
        makes=True,
        next="seqdata build auto",
    ),
    "synth": Command(
        "cli.start.synth:synth",
        "Write a small synthetic dump in a real dataset's layout.",
        "seqdata synth raw",
        makes=True,
    ),
    "build": Command(
        "cli.dataset.build:build",
        "Build a dataset from a raw dump.",
        "seqdata build msls raw --protocol msls-seqvlad",
        makes=True,
    ),
    "info": Command(
        "cli.dataset.inspect:info",
        "Print counts, spacing, sizes and protocol splits of a dataset.",
        "seqdata info datasets/msls",
    ),
    "preview": Command(
        "cli.dataset.preview:preview",
        "Write a self-contained HTML page about a dataset.",
        "seqdata preview datasets/msls",
        makes=True,
    ),
    "verify": Command(
        "cli.dataset.inspect:verify",
        "Check every byte of a dataset against its hashes.",
        "seqdata verify datasets/msls",
    ),
    "quarantine": Command(
        "cli.dataset.inspect:quarantine",
        "List every input that a build left out, with its reason.",
        "seqdata quarantine datasets/msls",
    ),
    "protocols": Command(
        "cli.dataset.sequences:protocols",
        "List the shipped protocols, or print one.",
        "seqdata protocols show nordland-sta",
    ),
    "sequences": Command(
        "cli.dataset.sequences:sequences",
        "Add windows of other lengths, spacings or protocols.",
        "seqdata sequences datasets/msls --length 10",
        makes=True,
        next="seqdata train",
    ),
    "leakage": Command(
        "cli.dataset.leakage:leakage",
        "Measure how much test ground lies near the training ground.",
        "seqdata leakage datasets/msls",
    ),
    "export": Command(
        "cli.dataset.export:export",
        "Write windows as tars or image folders for other programs.",
        "seqdata export datasets/msls --format folders --out images",
        makes=True,
    ),
    "merge": Command(
        "cli.dataset.versions:merge",
        "Seal a dataset, or features, that array jobs wrote in parts.",
        "seqdata merge datasets/msls",
        makes=True,
    ),
    "append": Command(
        "cli.dataset.versions:append",
        "Add new cities, laps or drives to a sealed dataset.",
        "seqdata append datasets/msls msls raw --cities paris",
        makes=True,
    ),
    "withdraw": Command(
        "cli.dataset.versions:withdraw",
        "Remove frames from a sealed dataset, as a new version.",
        "seqdata withdraw datasets/msls KEY --reason privacy",
        makes=True,
        next="seqdata index",
    ),
    "compact": Command(
        "cli.dataset.versions:compact",
        "Write a dataset's tables whole after appends and withdrawals.",
        "seqdata compact datasets/msls",
        makes=True,
        next="seqdata gc",
    ),
    "gc": Command(
        "cli.index.gc:gc",
        "Remove old versions of a dataset or index, and what kills left.",
        "seqdata gc datasets/msls --dry-run",
    ),
    "models": Command(
        "cli.training.models:models",
        "List the models, show what one is made of, or get one as it is.",
        "seqdata models show seqvlad-r18",
    ),
    "describe": Command(
        "cli.training.describe:describe",
        "Compute and store a descriptor of every frame.",
        "seqdata describe datasets/msls --model mean-r18",
        makes=True,
        next="seqdata train --features FEATURES",
    ),
    "train": Command(
        "cli.training.train:train",
        "Train a sequence-descriptor model on a dataset.",
        "seqdata train datasets/msls --model seqvlad-r18 --epochs 30",
        after_interrupt="continue with seqdata train --resume",
        makes=True,
        next="seqdata index",
    ),
    "import": Command(
        "cli.training.import_run:import_run",
        "Write a run from weights that a paper's program released.",
        "seqdata import vg-transformers best_model.pth --out runs/seqvlad",
        makes=True,
        next="seqdata index",
    ),
    "eval": Command(
        "cli.evaluation.evaluate:evaluate",
        "Measure recall of an index, predictions or descriptors.",
        "seqdata eval indexes/seqvlad --full --by night",
        makes=True,
    ),
    "baseline": Command(
        "cli.evaluation.baseline:baseline",
        "Measure recall of frame matching, without a sequence model.",
        "seqdata baseline datasets/msls --method seqslam",
        makes=True,
    ),
    "compare": Command(
        "cli.evaluation.compare:compare",
        "Compare the recall of two methods query by query.",
        "seqdata compare indexes/seqvlad baselines/frame",
    ),
    "search": Command(
        "cli.index.search:search",
        "Find the nearest places of images, videos or descriptors.",
        "seqdata search indexes/seqvlad drive/images -k 3",
    ),
    "pack": Command(
        "cli.index.pack:pack",
        "Write an index and its model as one folder for a robot.",
        "seqdata pack indexes/seqvlad --out place.pack",
        makes=True,
    ),
    "localize": Command(
        "cli.index.localize:localize",
        "Localize a recording, frame by frame, and write its track.",
        "seqdata localize place.pack drive.mp4",
        after_interrupt="what was localized so far is in the track's folder; name another with --out to start again",
        makes=True,
    ),
    "report": Command(
        "cli.evaluation.report:report",
        "Write a self-contained HTML page about an index.",
        "seqdata report indexes/seqvlad --compare baselines/frame",
        makes=True,
    ),
    "experiment": Command(
        "cli.training.experiment:experiment",
        "Run one of the papers' experiments and print its table.",
        "seqdata experiment seqvlad-table3 --scale smoke",
    ),
    "profile": Command(
        "cli.training.profile:profile",
        "Measure time and memory of models and of search.",
        "seqdata profile --model seqvlad-r18",
    ),
    "doctor": Command(
        "cli.start.doctor:doctor", "Check this machine and work folder, for a bug report.", "seqdata doctor"
    ),
    "demo": Command(
        "cli.start.demo:demo", "Run every step on a synthetic city.", "seqdata demo --out demo", makes=True
    ),
}
# The list of commands, in the order of the work; a command that stands in no group comes last.
GROUPS = {
    "Data": (
        "synth", "build", "info", "preview", "verify", "sequences", "leakage", "append", "withdraw", "compact", "gc",
        "export", "merge", "quarantine",
    ),
    "Models": ("models", "import", "describe", "train", "profile"),
    "Index": ("index", "search", "pack", "localize"),
    "Evidence": ("eval", "baseline", "compare", "report", "experiment", "protocols"),
    "Workshop": ("init", "demo", "doctor"),
}  # fmt: skip
