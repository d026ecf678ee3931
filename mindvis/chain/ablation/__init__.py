"""The paper's ablation tables, run on GOD or scaled down on the simulated cortex."""

from mindvis.chain.ablation.run import Ablation
from mindvis.chain.ablation.settings import AblateConfig
from mindvis.chain.ablation.tables import load_table, table_names

__all__ = ["AblateConfig", "Ablation", "load_table", "table_names"]
