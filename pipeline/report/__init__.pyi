from .page import write_report as write_report
from .status import WorkspaceStatus as WorkspaceStatus, workspace_status as workspace_status
