"""What experiments have in common: conditions, material, halves, scores, contrasts.

No experiment is imported, only `engine/` and what stands below experiments. Another condition or
patch setting goes into `conditions`, another way to compare arms into `contrasts`, another sampling
rule into `rules`; rows that two experiments measure have their functions here.
"""
