"""What modules of tf_lamb may import, by the plan: see `test_imports`."""

# module -> what of FRAMEWORKS and of this repository it may import
PURE = {"tf_lamb.check", "tf_lamb.arithmetic"}
CORE = {
    f"tf_lamb.{n}"
    for n in (
        "arguments",
        "directions",
        "exclusion",
        "hyperparameters",
        "moments",
        "rules",
        "schedule_checks",
        "schedules",
        "trust_ratios",
        "unit_clipping",
    )
} | PURE
# One update, and what an optimizer of any front end is made of.
UPDATE = {
    f"tf_lamb.{n}" for n in ("averages", "bundles", "groups", "update")
} | CORE
OPTIMIZER = {f"tf_lamb.{n}" for n in ("layer_adaptive", "optimizers")} | UPDATE
# TensorFlow's side of an update.
ON_TENSORFLOW = {
    f"tf_lamb.{n}"
    for n in (
        "tf_accumulation",
        "tf_contexts",
        "tf_norms",
        "tf_ops",
        "tf_update",
    )
}
KERAS = {"tf_lamb.keras_optimizer"} | ON_TENSORFLOW | OPTIMIZER
# What an optimizer needs to be saved, copied and loaded.
SAVING = {f"tf_lamb.{n}" for n in ("addons_checkpoints", "known_variables")}
TF_LAMB = {
    # Only for type checkers.
    "__init__": {
        f"tf_lamb.{n}"
        for n in (
            "diagnostics.monitor",
            "diagnostics.noise_callback",
            "groups",
            "keras3",
            "layerwise",
            "local_sgd",
            "wrapped",
        )
    },
    "arguments": {"tf_lamb.exclusion", "tf_lamb.hyperparameters"} | PURE,
    "arithmetic": set(),
    "check": set(),
    "figures": set(),
    "hyperparameters": PURE,
    "moments": {"tf_lamb.arithmetic"},
    "directions": {"tf_lamb.hyperparameters", "tf_lamb.moments"} | PURE,
    "rules": {
        "tf_lamb.directions",
        "tf_lamb.hyperparameters",
        "tf_lamb.moments",
        "tf_lamb.trust_ratios",
        "tf_lamb.unit_clipping",
    }
    | PURE,
    "trust_ratios": {"tf_lamb.arithmetic"},
    "unit_clipping": {"tf_lamb.hyperparameters"} | PURE,
    "exclusion": PURE,
    "groups": {"tf_lamb.exclusion", "tf_lamb.hyperparameters"} | PURE,
    "layerwise": {"tf_lamb.exclusion", "tf_lamb.groups"} | PURE,
    "bundles": {"tf_lamb.averages", "tf_lamb.groups"} | CORE,
    "schedule_checks": PURE,
    "schedules": {"tf_lamb.schedule_checks"} | PURE,
    "averages": PURE,
    "update": UPDATE,
    "configs": PURE,
    "saved": {"tf_lamb.exclusion"},
    "saved_state": {"tf_lamb.exclusion", "tf_lamb.saved"},
    "known_variables": {"tf_lamb.arithmetic", "tf_lamb.exclusion"},
    "layer_adaptive": {"tf_lamb.saved"} | UPDATE,
    "optimizers": OPTIMIZER,
    "keras_optimizer": {"tf_lamb.configs", "tf_lamb.saved_state"} | OPTIMIZER,
    "tf_ops": {"tensorflow"},
    "tf_norms": {"tensorflow", "tf_lamb.arithmetic", "tf_lamb.tf_ops"},
    "tf_update": {
        "tensorflow",
        "tf_lamb.tf_accumulation",
        "tf_lamb.tf_contexts",
        "tf_lamb.tf_norms",
        "tf_lamb.tf_ops",
    }
    | UPDATE,
    "tf_contexts": {"tensorflow"},
    "legacy_names": set(),
    "tf_accumulation": {"tensorflow"},
    "loss_scaling": {"tensorflow", "keras", "tf_lamb.wrapped"},
    # torch on its own backend only, inside the function that needs it.
    # JAX on its own backend only, inside the function that needs it.
    "sharding": {"keras", "jax"},
    "keras3": {
        "keras",
        "tf_lamb.keras3_loop",
        "tf_lamb.loss_scaling",
        "tf_lamb.torch_update",
    }
    | SAVING
    | KERAS,
    "keras3_loop": {"keras", "torch"} | UPDATE,
    "torch_lists": {"torch"},
    "torch_update": {
        "keras",
        "torch",
        "tf_lamb.keras3_loop",
        "tf_lamb.torch_lists",
    }
    | UPDATE,
    # tf.keras up to TensorFlow 2.15.
    "keras2": {
        "tensorflow",
        "tf_lamb.keras2_arguments",
        "tf_lamb.legacy_names",
    }
    | SAVING
    | KERAS,
    "keras2_arguments": {"tensorflow", "tf_keras"},
    "addons_checkpoints": {"tensorflow"},
    "v1": {"tensorflow", "tf_lamb.known_variables", "tf_lamb.v1_variables"}
    | ON_TENSORFLOW
    | OPTIMIZER,
    "v1_variables": {"tensorflow"},
    "wrapped": set(),
    "any_callback": set(),
    "same_model": {"tensorflow", "keras", "tf_keras"},
    "multi_worker": {
        "tensorflow",
        "keras",
        "tf_lamb.any_callback",
        "tf_lamb.check",
        "tf_lamb.same_model",
        "tf_lamb.loss_scaling",
    },
    "local_sgd": {
        "tensorflow",
        "tf_lamb",
        "tf_lamb.check",
        "tf_lamb.multi_worker",
        "tf_lamb.diagnostics.every",
    },
    # TensorFlow only where TensorBoard is asked for.
    "callbacks": {
        "keras",
        "tensorflow",
        "tf_lamb.any_callback",
        "tf_lamb.figures",
        "tf_lamb.wrapped",
    }
    | CORE,
    "diagnostics/__init__": {"tf_lamb.diagnostics.initialisation"},
    "diagnostics/initialisation": {
        "keras",
        "tf_lamb.check",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.probe",
    },
    "diagnostics/noise_scale": {"tf_lamb.check"},
    "diagnostics/alarms": {"tf_lamb.check"},
    "diagnostics/examples": {"tf_lamb.check"},
    # The framework of the model, inside the class of its backend.
    "diagnostics/probe": {
        "tensorflow",
        "jax",
        "torch",
        "keras",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.exclusion",
    }
    | PURE,
    # TensorFlow's workers only under one of its strategies.
    "diagnostics/every": {
        "tf_lamb.any_callback",
        "tf_lamb.diagnostics.probe",
        "tf_lamb.multi_worker",
        "tf_lamb.wrapped",
    }
    | PURE,
    # Before a training: the command lines, and what they are made of.
    "diagnostics/command_line": set(),
    "diagnostics/lanczos": {"tf_lamb.check"},
    "diagnostics/precision": set(),
    "diagnostics/curvature": {
        "keras",
        "tensorflow",
        "jax",
        "tf_lamb.check",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.probe",
        "tf_lamb.diagnostics.precision",
    },
    "diagnostics/spectrum": {
        "tf_lamb.check",
        "tf_lamb.figures",
        "tf_lamb.diagnostics.curvature",
        "tf_lamb.diagnostics.lanczos",
        "tf_lamb.wrapped",
    },
    "diagnostics/inputs": {
        "keras",
        "tf_lamb",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.probe",
    },
    "diagnostics/advice": {
        "keras",
        "tf_lamb.check",
        "tf_lamb.figures",
        "tf_lamb.schedules",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.noise_scale",
        "tf_lamb.diagnostics.probe",
    },
    "diagnostics/__main__": {
        f"tf_lamb.diagnostics.{n}"
        for n in (
            "advice",
            "at_weights",
            "command_line",
            "connect_command",
            "curvature",
            "examples",
            "inputs",
            "jacobian",
            "landscape_command",
            "noise_scale",
            "ntk_command",
            "probe",
            "prune_command",
            "spectrum",
        )
    },
    # SciPy inside the function that needs it.
    "diagnostics/jacobian": {
        "keras",
        "tensorflow",
        "jax",
        "tf_lamb.check",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.probe",
        "tf_lamb.diagnostics.precision",
    },
    # Lottery tickets.
    "diagnostics/masks": {"keras", "tf_lamb.check"},
    "diagnostics/tickets": {
        "keras",
        "tf_lamb.check",
        "tf_lamb.figures",
        "tf_lamb.wrapped",
    }
    | {f"tf_lamb.diagnostics.{n}" for n in ("examples", "masks", "probe")},
    "diagnostics/prune_command": {
        f"tf_lamb.diagnostics.{n}"
        for n in ("command_line", "examples", "inputs", "masks", "tickets")
    },
    # Weights that are not the model's own: slices, curves, kernels.
    "diagnostics/at_weights": {
        "keras",
        "tensorflow",
        "jax",
        "tf_lamb.check",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.probe",
    },
    "diagnostics/landscape": {
        "tf_lamb.check",
        "tf_lamb.figures",
        "tf_lamb.exclusion",
        "tf_lamb.diagnostics.at_weights",
        "tf_lamb.diagnostics.probe",
    },
    "diagnostics/landscape_command": {
        f"tf_lamb.diagnostics.{n}"
        for n in (
            "at_weights",
            "command_line",
            "examples",
            "inputs",
            "landscape",
        )
    },
    "diagnostics/curves": {
        "tf_lamb.check",
        "tf_lamb.figures",
        "tf_lamb.diagnostics.at_weights",
    },
    # An optimizer, inside the function that makes it.
    "diagnostics/curve_training": {
        "keras",
        "tensorflow",
        "jax",
        "tf_lamb.check",
    }
    | {
        f"tf_lamb.diagnostics.{n}"
        for n in ("at_weights", "curves", "examples", "probe")
    },
    "diagnostics/connect_command": {
        f"tf_lamb.diagnostics.{n}"
        for n in (
            "at_weights",
            "command_line",
            "curve_training",
            "curves",
            "examples",
            "inputs",
            "probe",
        )
    },
    "diagnostics/ntk": {
        "keras",
        "tensorflow",
        "jax",
        "tf_lamb.check",
        "tf_lamb.figures",
        "tf_lamb.diagnostics.at_weights",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.probe",
    },
    "diagnostics/ntk_command": {
        f"tf_lamb.diagnostics.{n}"
        for n in (
            "at_weights",
            "command_line",
            "examples",
            "inputs",
            "ntk",
        )
    },
    "diagnostics/heat_map": {"tf_lamb.callbacks", "tf_lamb.figures"},
    "diagnostics/monitor": {
        "tensorflow",
        "tf_lamb.callbacks",
        "tf_lamb.wrapped",
    }
    | PURE
    | {
        f"tf_lamb.diagnostics.{n}"
        for n in ("alarms", "every", "examples", "heat_map", "probe")
    },
    "diagnostics/noise_callback": {
        "tensorflow",
        "tf_lamb.callbacks",
        "tf_lamb.exclusion",
    }
    | PURE
    | {
        f"tf_lamb.diagnostics.{n}"
        for n in ("every", "examples", "noise_scale", "probe")
    },
}
