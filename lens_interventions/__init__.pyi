from . import behaviour as behaviour
from . import experiments as experiments
from . import intervals as intervals
from . import materials as materials
from . import verdicts as verdicts
from .affine import AffineLens as AffineLens
from .affine import fit_affine_lens as fit_affine_lens
from .aggregate import LensAggregate as LensAggregate
from .aggregate import lens_over as lens_over
from .effects import EffectMap as EffectMap
from .effects import effect_map as effect_map
from .generated_text import Generation as Generation
from .generated_text import GenerationStep as GenerationStep
from .generation import generate as generate
from .intervention import BoundPatch as BoundPatch
from .intervention import NextTokenPatch as NextTokenPatch
from .lens import Lens as Lens
from .lens import logit_lens as logit_lens
from .models import load_model as load_model
from .patch_site import KnownText as KnownText
from .patch_site import PatchSite as PatchSite
from .points import select_points as select_points
from .report import report as report
from .teacher_forcing import teacher_forced_log_probs as teacher_forced_log_probs
from .teacher_forcing import teacher_forced_logits as teacher_forced_logits
from .trajectory import Trajectory as Trajectory

__version__: str
