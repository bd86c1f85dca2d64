from .models import load_model as load_model

__version__: str
