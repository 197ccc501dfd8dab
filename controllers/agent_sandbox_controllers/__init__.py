"""The controllers of Agent Sandbox: one room per kind."""
