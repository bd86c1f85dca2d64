from . import experiments as experiments
from . import materials as materials
from . import plots as plots
from .fitting.affine_fit import fit_affine_lens as fit_affine_lens
from .fitting.affine_refinement import refine_affine_lens as refine_affine_lens
from .fitting.default_lens import default_affine_lens as default_affine_lens
from .fitting.input_probe import InputProbe as InputProbe
from .fitting.input_probe import fit_input_probe as fit_input_probe
from .fitting.input_recovery import InputRecovery as InputRecovery
from .fitting.input_recovery import input_recovery as input_recovery
from .fitting.lens_quality import LensQuality as LensQuality
from .fitting.lens_quality import lens_quality as lens_quality
from .fitting.linear_write import LinearCeiling as LinearCeiling
from .fitting.linear_write import LinearWrite as LinearWrite
from .fitting.linear_write import linear_ceiling as linear_ceiling
from .intervention.bound_patch import BoundPatch as BoundPatch
from .intervention.effect_map import EffectMap as EffectMap
from .intervention.effect_map import effect_map as effect_map
from .intervention.generation.generate import generate as generate
from .intervention.generation.result import Generation as Generation
from .intervention.generation.result import GenerationStep as GenerationStep
from .intervention.generation.sample_texts import sample_texts as sample_texts
from .intervention.known_text import KnownText as KnownText
from .intervention.learned_write import LearnedWrite as LearnedWrite
from .intervention.mechanism.head_result import HeadSlopes as HeadSlopes
from .intervention.mechanism.head_slopes import head_slopes as head_slopes
from .intervention.mechanism.rescue import rescue as rescue
from .intervention.mechanism.rescue_result import Rescue as Rescue
from .intervention.patch import NextTokenPatch as NextTokenPatch
from .intervention.site import PatchSite as PatchSite
from .intervention.slopes.curvature import curvature as curvature
from .intervention.slopes.curvature_result import Curvature as Curvature
from .intervention.slopes.prediction import SlopePrediction as SlopePrediction
from .intervention.slopes.result import SlopeMap as SlopeMap
from .intervention.slopes.slope_map import slope_map as slope_map
from .intervention.teacher_forcing.log_probs import (
    teacher_forced_log_probs as teacher_forced_log_probs,
)
from .intervention.teacher_forcing.log_probs import teacher_forced_logits as teacher_forced_logits
from .intervention.training.options import TrainingOptions as TrainingOptions
from .intervention.training.residual_store import ResidualStore as ResidualStore
from .intervention.training.result import TrainedPatch as TrainedPatch
from .intervention.training.train_patch import train_patch as train_patch
from .lens.affine import AffineLens as AffineLens
from .lens.aggregate import LensAggregate as LensAggregate
from .lens.aggregate import lens_over as lens_over
from .lens.logit_lens import logit_lens as logit_lens
from .lens.protocol import Lens as Lens
from .lens.trajectory import Trajectory as Trajectory
from .lens.tuned_lens import load_tuned_lens as load_tuned_lens
from .measures import behaviour as behaviour
from .measures import intervals as intervals
from .measures import verdicts as verdicts
from .model.load import load_model as load_model
from .model.points import select_points as select_points
from .pages.report import report as report

__version__: str
