"""What experiments have in common: questions, conditions, material, halves, scores, contrasts.

It imports `engine/` and what stands below experiments, and no experiment. A new condition or patch
setting goes into `conditions`, a new way to compare arms into `contrasts`, what a verdict on the
patch rests on into `comparisons`, a new sampling rule into `rules`. What two experiments measure
alike is measured by a function here. Networks that are trained from their start share
`small_networks/`, patches that are trained on held-out text `trained_patches/`.
"""
