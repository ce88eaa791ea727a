"""Reads class means, and writes solutions and results. Every reader limits what it reads, and executes none of it."""

from __future__ import annotations

from etfopt._atomic import StorageError, make_folder, whole, write_atomically
from etfopt.files._frames import refuse_frame_output, save_frame
from etfopt.files._layers import SavedLayer, classes_of, classes_without_samples, find_saved
from etfopt.files._matrices import load_matrix
from etfopt.files._rows import Rows, open_rows
from etfopt.files._writing import refuse_as_output, refuse_occupied, save_solution, strict_json

__all__ = [
    "Rows",
    "SavedLayer",
    "StorageError",
    "classes_of",
    "classes_without_samples",
    "find_saved",
    "load_matrix",
    "make_folder",
    "open_rows",
    "refuse_as_output",
    "refuse_frame_output",
    "refuse_occupied",
    "save_frame",
    "save_solution",
    "strict_json",
    "whole",
    "write_atomically",
]
