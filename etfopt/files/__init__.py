"""Class means from files, solutions and numbers into files; every reader is bounded and runs nothing it reads."""

from __future__ import annotations

from etfopt.files._matrices import load_matrix
from etfopt.files._writing import refuse_as_output, refuse_occupied, save_solution, strict_json, whole

__all__ = ["load_matrix", "refuse_as_output", "refuse_occupied", "save_solution", "strict_json", "whole"]
