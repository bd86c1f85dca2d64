"""Reading the residual stream: the logit lens, fitted lenses, their results, means over texts.

It may import `model`, `drawing`, `materials` and `measures`. A new statistic begins as a row of the
table in `statistics.py`; its formula goes into `reduction.py`, on top of the functions of logits in
`distributions.py`. A new kind of lens goes beside `affine.py` and `tuned_lens.py`; `protocol.py`
says what every lens must do. Code that fits one to a corpus belongs in `fitting`.
"""
