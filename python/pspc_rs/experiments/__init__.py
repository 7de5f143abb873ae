"""The paper's experiments: functions that return numbers and figures; `pspc_rs.cli` makes them commands."""
