"""The scheduler of a diffusers folder as the noise schedule of a published config.

A scheduler says how a model was trained and how it is to be sampled. Only the first is taken from it: how to sample is
chosen here, by sampler and number of steps. What would make a sampler draw something else on the same steps
(thresholds, shifted or turned lines) is refused; clipping, which many files have by default, is said and not done.
"""

import logging
from typing import Any

from mindvis.checkpoints.diffusers_checks import Config, check_fixed, flag, one_of, shown, size, wrong
from mindvis.common.errors import InputError

log = logging.getLogger(__name__)

MOST_TIMESTEPS = 100_000
SPACINGS = {"scaled_linear": "linear", "linear": "sqrt_linear"}  # theirs -> the published name
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "flow_prediction": "flow"}
FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
FLOW_FIXED = {"shift": 1.0, "use_dynamic_shifting": False, "invert_sigmas": False}
# of a solver on straight lines
FLOW_SOLVER_FIXED = {"use_flow_sigmas": True, "flow_shift": 1.0, "use_dynamic_shifting": False}
FLOW_SOLVERS = tuple(
    f"{name}Scheduler" for name in ("DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep")
)
FIXED = {"trained_betas": None, "thresholding": False, "use_flow_sigmas": False, "timestep_type": "discrete"}
# Of every class the defaults that are not those of the others. Only the first ones can rescale their betas.
DEFAULTS: Config = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
OF_STABLE_DIFFUSION: Config = {"beta_start": 0.00085, "beta_end": 0.012}
RESCALING: dict[str, Config] = {
    "DDIMScheduler": {"clip_sample": True},
    "DDPMScheduler": {"clip_sample": True},
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {},
    "UniPCMultistepScheduler": {},
    "LCMScheduler": {**OF_STABLE_DIFFUSION, "beta_schedule": "scaled_linear"},
}
NOT_RESCALING: dict[str, Config] = {
    "PNDMScheduler": {},
    "LMSDiscreteScheduler": {},
    "DPMSolverSinglestepScheduler": {},
    "DEISMultistepScheduler": {},
    "HeunDiscreteScheduler": OF_STABLE_DIFFUSION,
    "DPMSolverSDEScheduler": OF_STABLE_DIFFUSION,
    "KDPM2DiscreteScheduler": OF_STABLE_DIFFUSION,
    "KDPM2AncestralDiscreteScheduler": OF_STABLE_DIFFUSION,
}
SCHEDULERS = (*RESCALING, *NOT_RESCALING, FLOW_SCHEDULER)


def schedule(given: Config, where: str) -> dict[str, Any]:
    """Options of `model.params` in the published form. Raises InputError for what our schedules do not have."""
    kind = one_of(given.get("_class_name"), "_class_name", SCHEDULERS, where)
    timesteps = size(given.get("num_train_timesteps", 1000), "num_train_timesteps", where, MOST_TIMESTEPS)
    prediction = given.get("prediction_type", "epsilon")
    if kind == FLOW_SCHEDULER:
        check_fixed(given, FLOW_FIXED, where)
        return {"timesteps": timesteps, "parameterization": "flow"}
    if not isinstance(prediction, str) or prediction not in PREDICTIONS:
        raise wrong(where, "prediction_type", prediction, "epsilon or v_prediction; nearest: epsilon")
    if PREDICTIONS[prediction] == "flow":
        if kind not in FLOW_SOLVERS:
            raise wrong(where, "_class_name", kind, f"{FLOW_SCHEDULER}, prediction_type being {prediction}")
        check_fixed(given, FLOW_SOLVER_FIXED, where, {"use_flow_sigmas": False})
        return {"timesteps": timesteps, "parameterization": "flow"}
    own = {**DEFAULTS, **(RESCALING | NOT_RESCALING)[kind]}
    check_fixed(given, FIXED, where, own)
    if given.get("clip_sample", own.get("clip_sample")):
        log.warning("%s: clip_sample is true: the library clips predicted latents, the samplers here do not", where)
    return {
        "timesteps": timesteps,
        **_betas({**own, **given}, where),
        "parameterization": PREDICTIONS[prediction],
        "zero_terminal_snr": _is_rescaled(given, kind, where),
    }


def _is_rescaled(given: Config, kind: str, where: str) -> bool:
    name = "rescale_betas_zero_snr"
    rescaled = flag(given.get(name, False), name, where)
    if rescaled and kind in NOT_RESCALING:
        raise wrong(where, name, rescaled, f"false, because a {kind} does not rescale")
    if rescaled and given.get("prediction_type", "epsilon") == "epsilon":
        raise wrong(where, name, rescaled, "false, or the prediction_type v_prediction")
    if rescaled and given.get("num_train_timesteps") == 1:
        raise wrong(where, name, rescaled, "false, or more than one of num_train_timesteps")
    return rescaled


def _betas(given: Config, where: str) -> dict[str, Any]:
    spacing = given["beta_schedule"]
    if not isinstance(spacing, str) or spacing not in SPACINGS:
        raise InputError(f"{where}: beta_schedule is {shown(spacing)}; nearest: scaled_linear, or linear")
    for name in ("beta_start", "beta_end"):
        if type(given[name]) not in (int, float) or not 0 < given[name] < 1:
            raise wrong(where, name, given[name], "a number between 0 and 1")
    return {
        "linear_start": given["beta_start"],
        "linear_end": given["beta_end"],
        "beta_schedule": SPACINGS[spacing],
    }
