"""Parts that experiments share: questions, conditions, material, halves, scores, contrasts.

It imports `engine/` and packages below experiments, and no experiment. A new condition or patch
setting goes into `conditions`, a new way to compare arms into `contrasts`, a new choice of a cell
into `grid_cells`, a new basis of verdicts on the patch into `comparisons`, a new sampling rule into
`rules`. If two experiments measure the same thing, a function here measures it. Experiments that
train networks from scratch share `small_networks/`; those that train patches and measure them on
held-out text share `trained_patches/`.
"""
