"""Experiments, most of which ask whether it helps a model to see the true next token.

An experiment is a plan: settings, stages that make independent units of work, and an analysis of
their rows. `run` carries it out on a model, in this process or on any executor, and keeps every
finished unit in the directory of the run.

`engine/` runs units, `design/` holds what experiments share, and each experiment is a package that
imports no other; `plans` lists those that run on any model. They import the packages below: search,
fitting, the intervention, the lens, the model, measures, materials and the drawing kit.
"""

from .copying import CopyingSettings as CopyingSettings
from .copying import copying as copying
from .design.material import CopyingMaterial as CopyingMaterial
from .design.small_networks.settings import SmallNetworkSettings as SmallNetworkSettings
from .engine.model_source import Model as Model
from .engine.results import Analysis as Analysis
from .engine.results import Finding as Finding
from .engine.results import Result as Result
from .engine.results import load_result as load_result
from .engine.run import Experiment as Experiment
from .engine.run import run as run
from .engine.run_directory import read_tables as read_tables
from .engine.run_header import RunDirectoryError as RunDirectoryError
from .engine.work_units import Unit as Unit
from .engine.work_units import unit_kind as unit_kind
from .increment import IncrementSettings as IncrementSettings
from .increment import increment as increment
from .last_word import LastWordSettings as LastWordSettings
from .last_word import last_word as last_word
from .learned import LearnedSettings as LearnedSettings
from .learned import learned as learned
from .learned import trained_writes as trained_writes
from .likeliest import LikeliestSettings as LikeliestSettings
from .likeliest import likeliest as likeliest
from .loops import LoopsSettings as LoopsSettings
from .loops import loops as loops
from .preservation import PreservationSettings as PreservationSettings
from .preservation import preservation as preservation
from .reader import ReaderSettings as ReaderSettings
from .reader import reader as reader
from .recall import RecallSettings as RecallSettings
from .recall import recall as recall
from .scratch import ScratchSettings as ScratchSettings
from .scratch import ScratchTraining as ScratchTraining
from .scratch import TrainedModel as TrainedModel
from .scratch import scratch as scratch
from .scratch import trained_models as trained_models
from .slopes import SlopesSettings as SlopesSettings
from .slopes import slopes as slopes
from .unlikely import UnlikelySettings as UnlikelySettings
from .unlikely import unlikely as unlikely
from .upbringing import UpbringingSettings as UpbringingSettings
from .upbringing import upbringing as upbringing
