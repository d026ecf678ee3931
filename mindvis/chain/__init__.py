"""One command for the chain: plan, skip what is done, run what is missing, continue after a failure."""

from mindvis.chain.ablation import AblateConfig, Ablation
from mindvis.chain.ablation_tables import load_table, table_names
from mindvis.chain.execute import Runner, describe_plan, ready, run_subjects, to_go_on
from mindvis.chain.overview import read_summaries, write_overview
from mindvis.chain.plan import ChainConfig, StageConfig, Step, by_settings, by_stage, plan_chain
from mindvis.chain.processes import SAVED_AND_STOPPED, Forks, Processes, Screen, launcher
from mindvis.chain.record import Record, absent_inputs, locked

__all__ = [
    "SAVED_AND_STOPPED",
    "AblateConfig",
    "Ablation",
    "ChainConfig",
    "Forks",
    "Processes",
    "Record",
    "Runner",
    "Screen",
    "StageConfig",
    "Step",
    "absent_inputs",
    "by_settings",
    "by_stage",
    "describe_plan",
    "launcher",
    "load_table",
    "locked",
    "plan_chain",
    "read_summaries",
    "ready",
    "run_subjects",
    "table_names",
    "to_go_on",
    "write_overview",
]
