"""One command for the chain: plan, skip what is done, run what is missing, continue after a failure."""

from mindvis.chain.absent import absent_inputs, refuse_absent
from mindvis.chain.execute import Runner, describe_plan, run_subjects
from mindvis.chain.overview import write_overview
from mindvis.chain.plan import Step, by_settings, by_stage, plan_chain
from mindvis.chain.processes import SAVED_AND_STOPPED, Processes
from mindvis.chain.record import Record, locked
from mindvis.chain.settings import ChainConfig, StageConfig

__all__ = [
    "SAVED_AND_STOPPED",
    "ChainConfig",
    "Processes",
    "Record",
    "Runner",
    "StageConfig",
    "Step",
    "absent_inputs",
    "by_settings",
    "by_stage",
    "describe_plan",
    "locked",
    "plan_chain",
    "refuse_absent",
    "run_subjects",
    "write_overview",
]
