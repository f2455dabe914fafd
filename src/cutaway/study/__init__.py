"""The method, from behaviour to report: a plan of stages, each saved as it finishes."""

from cutaway.study.attention import Attention
from cutaway.study.blackbox import BlackBox
from cutaway.study.blackbox_calibration import Calibration, calibration
from cutaway.study.blackbox_flipped import Flip, Flips
from cutaway.study.blackbox_flips import flips
from cutaway.study.blackbox_frequency import Frequency, frequency
from cutaway.study.blackbox_insertions import Insertions, insertions
from cutaway.study.compare import compare
from cutaway.study.comparison import StudyComparison
from cutaway.study.discovery import Discovered
from cutaway.study.estimates import Estimated
from cutaway.study.evaluation import Evaluated
from cutaway.study.hypothesis import RoleHypothesis, read_hypotheses
from cutaway.study.lens import Lenses
from cutaway.study.manifest import Manifest, StageRecord
from cutaway.study.patching import Patching
from cutaway.study.paths import Paths
from cutaway.study.plan import PLAN, Plan
from cutaway.study.reading import read_study
from cutaway.study.role_tests import ROLES
from cutaway.study.roles import Roles
from cutaway.study.runner import run
from cutaway.study.scrubbing import Scrubbing
from cutaway.study.settings import Settings
from cutaway.study.stage import Inputs, Progress, Skipped, SkippedError, Stage
from cutaway.study.study import Study
from cutaway.study.tested import Hypotheses, Tested
from cutaway.study.verdict import Attack, RedTeam

__all__ = [
    "PLAN",
    "ROLES",
    "Attack",
    "Attention",
    "BlackBox",
    "Calibration",
    "Discovered",
    "Estimated",
    "Evaluated",
    "Flip",
    "Flips",
    "Frequency",
    "Hypotheses",
    "Inputs",
    "Insertions",
    "Lenses",
    "Manifest",
    "Patching",
    "Paths",
    "Plan",
    "Progress",
    "RedTeam",
    "RoleHypothesis",
    "Roles",
    "Scrubbing",
    "Settings",
    "Skipped",
    "SkippedError",
    "Stage",
    "StageRecord",
    "Study",
    "StudyComparison",
    "Tested",
    "calibration",
    "compare",
    "flips",
    "frequency",
    "insertions",
    "read_hypotheses",
    "read_study",
    "run",
]
