"""The place of `pspc_rs.samplers.noise` in earlier versions."""

from pspc_rs.deprecation import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "Generator": "pspc_rs.samplers.noise.Generator",
        "Noise": "pspc_rs.samplers.noise.Noise",
        "image_shape": "pspc_rs.checks.image_shape",
        "initial_noise": "pspc_rs.samplers.initial_noise",
        "noise_like": "pspc_rs.samplers.noise.noise_like",
        "noise_source": "pspc_rs.samplers.noise_source",
    },
)
