"""Reading the residual stream: the logit lens, fitted lenses, what they read, means over texts.

It may import `model`, `drawing`, `materials` and `measures`. A new statistic begins as a row of the
table in `statistics.py`; its formula goes into `reduction.py`, on top of the functions of logits in
`distributions.py`. A new kind of lens goes beside `affine.py` and `tuned_lens.py`; what any lens
must do stands in `protocol.py`. Code that fits one to a corpus belongs in `fitting`.
"""
