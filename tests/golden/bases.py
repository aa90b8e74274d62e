"""The configurations that the models of the parity suite vary."""

from __future__ import annotations

import copy

SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy "
    "Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf "
    "Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
)
ELEMENTS_118 = SYMBOLS.split()


def merge(base: dict, *changes: dict) -> dict:
    """A copy of `base` with the changes, nested dictionaries merged."""
    result = copy.deepcopy(base)
    for change in changes:
        for key, value in change.items():
            nested = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merge(result[key], value) if nested else copy.deepcopy(value)
    return result


# The switches of the published medium model.
MEDIUM = {
    "type_map": ["O", "H"],
    "descriptor": {
        "type": "dpa2",
        "repinit": {
            "rcut": 5.0,
            "rcut_smth": 0.5,
            "nsel": 90,
            "tebd_dim": 4,
            "neuron": [3, 6, 12],
            "axis_neuron": 3,
            "activation_function": "tanh",
            "use_three_body": True,
            "three_body_neuron": [2, 4, 8],
            "three_body_rcut": 4.0,
            "three_body_rcut_smth": 3.0,
            "three_body_sel": 45,
        },
        "repformer": {
            "rcut": 3.5,
            "rcut_smth": 2.5,
            "nsel": 30,
            "nlayers": 2,
            "g1_dim": 12,
            "g2_dim": 8,
            "axis_neuron": 2,
            "attn1_hidden": 4,
            "attn1_nhead": 2,
            "attn2_hidden": 4,
            "attn2_nhead": 2,
            "attn2_has_gate": True,
            "update_g1_has_attn": False,
            "update_g2_has_g1g1": False,
            "update_style": "res_residual",
            "update_residual": 0.3,
            "update_residual_init": "norm",
        },
        "precision": "float64",
    },
    "fitting_net": {
        "type": "ener",
        "neuron": [12, 12, 12],
        "resnet_dt": True,
        "precision": "float64",
    },
}
# Everything that a repformer layer can do but the update of h2.
FULL = merge(
    MEDIUM,
    {
        "descriptor": {
            "repformer": {
                "g1_dim": 10,
                "update_g1_has_attn": True,
                "update_g2_has_g1g1": True,
            }
        }
    },
)
DPA1 = {
    "type_map": ["O", "H"],
    "descriptor": {
        "type": "dpa1",
        "rcut": 5.0,
        "rcut_smth": 0.5,
        "sel": 90,
        "neuron": [4, 8, 16],
        "axis_neuron": 3,
        "tebd_dim": 4,
        "attn_layer": 0,
        "precision": "float64",
    },
    "fitting_net": {
        "type": "ener",
        "neuron": [12, 12, 12],
        "resnet_dt": True,
        "precision": "float64",
    },
}
GENERATION_2_0 = {
    "descriptor": {
        "repinit": {"rcut": 6.0, "rcut_smth": 5.0, "nsel": 150, "use_three_body": False},
        "repformer": {
            "rcut": 3.5,
            "rcut_smth": 3.0,
            "update_style": "res_avg",
            "use_sqrt_nnei": False,
            "g1_out_conv": False,
            "g1_out_mlp": False,
        },
    }
}
