"""The place of `pspc_rs.samplers.design_space` in earlier versions."""

from pspc_rs.deprecation import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "DISCRETIZATIONS": "pspc_rs.samplers.design_space.DISCRETIZATIONS",
        "EPSILON_S": "pspc_rs.samplers.design_space.EPSILON_S",
        "LinearSchedule": "pspc_rs.samplers.design_space.LinearSchedule",
        "Schedule": "pspc_rs.samplers.design_space.NoiseSchedule",
        "VESchedule": "pspc_rs.samplers.design_space.VESchedule",
        "VPSchedule": "pspc_rs.samplers.design_space.VPSchedule",
        "find_schedule": "pspc_rs.samplers.design_space.noise_schedule",
        "iddpm_sigmas": "pspc_rs.samplers.design_space.iddpm_sigmas",
        "noise_table": "pspc_rs.samplers.design_space.noise_table",
        "ve_sigmas": "pspc_rs.samplers.design_space.ve_sigmas",
        "vp_sigmas": "pspc_rs.samplers.design_space.vp_sigmas",
    },
)
