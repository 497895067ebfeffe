"""Verdicts, rules, the risk ledger, decisions and receipts: pure."""
