from .intervention import BoundPatch as BoundPatch
from .intervention import NextTokenPatch as NextTokenPatch
from .models import load_model as load_model
from .patch_site import KnownText as KnownText
from .patch_site import PatchSite as PatchSite

__version__: str
