"""A cache with room for more holds what `DynamicCache` holds, whatever is done to it."""

import torch
from transformers import DynamicCache

from lens_interventions.model.roomy_cache import roomy_cache


def test_it_holds_what_a_dynamic_cache_holds():
    generator = torch.Generator().manual_seed(0)
    caches, batch = (roomy_cache(), DynamicCache()), 3

    def grow(columns):
        states = torch.randn(2, batch, 2, columns, 4, generator=generator)
        found, expected = ([cache.update(*states, layer) for layer in range(2)] for cache in caches)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert caches[0].get_seq_length(1) == caches[1].get_seq_length(1)

    for columns in (7, 1, 2, 60, 90, 1):
        grow(columns)
        for cache in caches:
            cache.crop(-1)
        grow(2)
    for cache in caches:
        cache.batch_select_indices(torch.tensor([2, 0]))
    batch = 2
    grow(1)
    for cache in caches:
        cache.batch_repeat_interleave(2)
    batch = 4
    grow(1)


def test_a_new_column_leaves_the_old_ones_where_they_are():
    cache, states = roomy_cache(), torch.ones(2, 1, 1, 3, 4)
    first, _ = cache.update(*states, 0)
    second, _ = cache.update(*states, 0)
    assert second.data_ptr() == first.data_ptr()
