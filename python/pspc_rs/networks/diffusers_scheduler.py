"""How a network of the diffusers library was trained, from the configuration of its scheduler."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pspc_rs.errors import DataError
from pspc_rs.networks.processes import DiscreteVP, Edm, FlowMatching, NoiseProcess

# What the library calls our predictions.
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_FLOW_PREDICTIONS = {"flow_prediction": "flow", "epsilon": "eps", "sample": "x0"}
_VP_SCHEDULERS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "DDPMParallelScheduler",
    "DDIMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "UniPCMultistepScheduler",
)
_EDM_SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
_FLOW_SCHEDULERS = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
)
_WITH_FLOW_SIGMAS = (
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
)
# Where zero terminal SNR leaves the last step as good as nothing of the image, instead of nothing.
_LEAST_ABAR = {
    "DPMSolverMultistepScheduler": 2.0**-24,
    "EulerDiscreteScheduler": 2.0**-24,
    "EulerAncestralDiscreteScheduler": 2.0**-24,
    "UniPCMultistepScheduler": 2.0**-24,
}
_STEPS, _BETAS, _OTHER_BETAS = 1000, (1e-4, 0.02), {"HeunDiscreteScheduler": (0.00085, 0.012)}


class Training(NamedTuple):
    """How a network was trained.

    Attributes:
        prediction: what it predicts, a name of the adapter's.
        process: its noise process.
        time_scale: factor of its times.
        limits: smallest and largest noise level; None for those of the process.
        negated: whether it predicts that with the other sign.
    """

    prediction: str
    process: NoiseProcess
    time_scale: float = 1.0
    limits: tuple[Any, Any] = (None, None)
    negated: bool = False


def training_of(scheduler: Mapping[str, Any]) -> Training:
    """How the network beside a scheduler's configuration was trained.

    Args:
        scheduler: the configuration; an empty one is that of the library's `DDPMScheduler`.

    Raises:
        DataError: the scheduler is of another kind, or asks for what cannot be done exactly; the message names it.
        InvalidValueError: an entry is out of range.
        DTypeError: one is of the wrong type.

    Example:
        >>> training_of({"_class_name": "EDMEulerScheduler", "sigma_data": 1.0}).process
        Edm(sigma_data=1.0)
    """
    name = str(scheduler.get("_class_name", "DDPMScheduler"))
    if name in _FLOW_SCHEDULERS:
        return _flow_matching(scheduler)
    if name in _EDM_SCHEDULERS:
        return _edm(scheduler)
    if name not in _VP_SCHEDULERS:
        known = ", ".join((*_VP_SCHEDULERS, *_EDM_SCHEDULERS, *_FLOW_SCHEDULERS))
        raise DataError(
            f"the scheduler is a {name:.80}; allowed are {known}. Others can be described in a JSON file, with the "
            "U-Net as a TorchScript file or import path"
        )
    if scheduler.get("use_flow_sigmas"):
        return _flow_sigmas(name, scheduler)
    prediction = _named(scheduler, "prediction_type", "epsilon", _PREDICTIONS)
    if scheduler.get("timestep_type", "discrete") != "discrete" and prediction == "v":
        return _continuous_times(name, scheduler)
    return Training(prediction, _process(name, scheduler))


def _flow_matching(scheduler: Mapping[str, Any]) -> Training:
    """Flow matching networks of the library count time in steps."""
    if scheduler.get("invert_sigmas"):
        raise DataError("the scheduler has invert_sigmas, a time that runs from noise to data, which is not supported")
    return Training("flow", FlowMatching(), float(scheduler.get("num_train_timesteps", _STEPS)))


def _flow_sigmas(name: str, scheduler: Mapping[str, Any]) -> Training:
    if name not in _WITH_FLOW_SIGMAS:
        raise DataError(f"the scheduler has use_flow_sigmas, which a {name} does not know")
    prediction = _named(scheduler, "prediction_type", "epsilon", _FLOW_PREDICTIONS, " with use_flow_sigmas")
    return Training(prediction, FlowMatching(), float(scheduler.get("num_train_timesteps", _STEPS)))


def _edm(scheduler: Mapping[str, Any]) -> Training:
    """Karras et al.'s preconditioning; the library's v is F with the other sign."""
    kind = _named(scheduler, "prediction_type", "epsilon", {"epsilon": "edm", "v_prediction": "-edm"})
    process = Edm(scheduler.get("sigma_data", 0.5))
    limits = scheduler.get("sigma_min", 0.002), scheduler.get("sigma_max", 80.0)
    return Training("edm", process, limits=limits, negated=kind == "-edm")


def _continuous_times(name: str, scheduler: Mapping[str, Any]) -> Training:
    """Networks that get log(sigma) / 4 and predict v, as EDM's of data with variance 1."""
    kind = _named(scheduler, "timestep_type", "discrete", {"continuous": "continuous"})
    if name != "EulerDiscreteScheduler":
        raise DataError(f"the scheduler has timestep_type {kind!r}, which a {name} does not know")
    low, high = _process(name, scheduler).limits()
    given = scheduler.get("sigma_min"), scheduler.get("sigma_max")
    limits = (low if given[0] is None else given[0], high if given[1] is None else given[1])
    return Training("v", Edm(1.0), limits=limits)


def _process(name: str, scheduler: Mapping[str, Any]) -> DiscreteVP:
    process = _with_betas(name, scheduler)
    if not scheduler.get("rescale_betas_zero_snr"):
        return process
    return process.with_zero_snr(_LEAST_ABAR.get(name, 0.0))


def _with_betas(name: str, scheduler: Mapping[str, Any]) -> DiscreteVP:
    if scheduler.get("trained_betas") is not None:
        return DiscreteVP.of_betas(scheduler["trained_betas"])
    first, last = _OTHER_BETAS.get(name, _BETAS)
    steps = scheduler.get("num_train_timesteps", _STEPS)
    ends = scheduler.get("beta_start", first), scheduler.get("beta_end", last)
    match scheduler.get("beta_schedule", "linear"):
        case "linear":
            return DiscreteVP.linear(steps, *ends)
        case "scaled_linear":
            return DiscreteVP.scaled_linear(steps, *ends)
        case "squaredcos_cap_v2":
            return DiscreteVP.cosine(steps)
        case "sigmoid":
            return DiscreteVP.sigmoid(steps, *ends)
        case other:
            allowed = "linear, scaled_linear, squaredcos_cap_v2, sigmoid"
            raise DataError(f"the scheduler has beta_schedule {other!r:.80}; allowed are {allowed}")


def _named(scheduler: Mapping[str, Any], entry: str, default: str, allowed: Mapping[str, str], where: str = "") -> str:
    """What an entry of the configuration stands for."""
    value = scheduler.get(entry, default)
    if not isinstance(value, str) or value not in allowed:
        raise DataError(f"the scheduler has {entry} {value!r:.80}{where}; allowed are {', '.join(allowed)}")
    return allowed[value]
