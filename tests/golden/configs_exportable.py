"""The configurations that DeePMD-kit's exportable backend (`dp --pt-expt`) evaluates.

Most of them by its graph route, over all neighbours within the cutoffs: their lists have little room, so that most
structures overfill them.
"""

from __future__ import annotations

from .bases import DPA1, FULL, GENERATION_2_0, MEDIUM, merge
from .configs import Case

_NO_THREE_BODY = {"descriptor": {"repinit": {"nsel": 24, "use_three_body": False}}}
_NARROW = merge(_NO_THREE_BODY, {"descriptor": {"repformer": {"nsel": 10}}})
_GRAPH = merge(FULL, _NARROW)
# The attentions' logits are so large that many lie below -20, where the shares of slots matter. Where all of a row
# do by far, DeePMD-kit's own forces are rounding errors (it subtracts N from a sum that is N), but not its dense
# route's.
_STEEP = {"attn2g_map.mapqk": 20.0, "loc_attn.mapq": 20.0}
_STEEP_H2 = {"repformer": {"update_h2": True, "attn2_has_gate": False, "nlayers": 3}}
_EXCLUSIONS = {
    "type_map": ["O", "H", "Si"],
    "pair_exclude_types": [[0, 2]],
    "descriptor": {"exclude_types": [[1, 1]]},
}

EXPORTABLE = {
    "graph": Case(_GRAPH, (0, 1)),
    "graph_medium": Case(merge(MEDIUM, _NARROW), (0, 1)),
    "graph_2_0": Case(merge(FULL, GENERATION_2_0, _NARROW), (0, 1)),
    "graph_steep": Case(_GRAPH, (0, 1), scales=_STEEP),
    "graph_steep_h2": Case(
        merge(_GRAPH, {"descriptor": _STEEP_H2}),
        (0, 1),
        scales=_STEEP | {"attn2g_map.mapqk": 3.0},
    ),
    "graph_strip_exclusions": Case(
        merge(_GRAPH, _EXCLUSIONS, {"descriptor": {"repinit": {"tebd_input_mode": "strip"}}}),
        (0, 1, 2),
    ),
    "graph_not_smooth": Case(merge(_GRAPH, {"descriptor": {"smooth": False}}), (0, 1)),
    "graph_float32": Case(
        merge(
            _GRAPH,
            {"descriptor": {"precision": "float32"}, "fitting_net": {"precision": "float32"}},
        ),
        (0, 1),
    ),
    "graph_heads": Case(
        {
            "shared_dict": {"types": ["O", "H"], "descriptor": _GRAPH["descriptor"]},
            "model_dict": {
                head: {
                    "type_map": "types",
                    "descriptor": "descriptor",
                    "fitting_net": merge(MEDIUM["fitting_net"], {"neuron": neuron}),
                }
                for head, neuron in (("Water", [12, 12]), ("Ice", [8]))
            },
        },
        (0, 1),
        heads={"Water": {}, "Ice": {}},
    ),
    "graph_dpa1": Case(merge(DPA1, {"descriptor": {"sel": 24}}), (0, 1)),
    "graph_dpa1_strip": Case(
        merge(
            DPA1,
            {
                "descriptor": {
                    "type": "se_atten_v2",
                    "sel": 24,
                    "resnet_dt": True,
                    "use_econf_tebd": True,
                }
            },
        ),
        (0, 1),
    ),
    # Over the nearest neighbours only: switched off, or with what that route does not have.
    "dense_switched": Case(_GRAPH, (0, 1), dense=True),
    "dense_steep_h2": Case(
        merge(_GRAPH, {"descriptor": _STEEP_H2}), (0, 1), scales=_STEEP, dense=True
    ),
    "dense_three_body": Case(
        merge(
            FULL,
            {"descriptor": {"repinit": {"nsel": 24, "three_body_sel": 10}}},
            {"descriptor": {"repformer": {"nsel": 10}}},
        ),
        (0, 1),
    ),
}

# Of these the weights are kept as frozen files have them, too.
TREES = ("graph", "graph_dpa1_strip", "dense_three_body")
