"""Rows: reading and checking them, the TOFU benchmark's splits, overlap between sets, and batches.

A data set is a `datasets.Dataset` whose columns are those of `Example` (a prompt and what to answer) or of `TofuRow`
(a question, its answer, and rewritings of both). Columns beyond these are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur.lazy import attach

if TYPE_CHECKING:
    from demur.data.abstentions import ABSTENTIONS as ABSTENTIONS
    from demur.data.answer_checker import check_answer as check_answer
    from demur.data.batch import Batch as Batch
    from demur.data.batch import Encoded as Encoded
    from demur.data.batch import collate as collate
    from demur.data.builders.dart import dars_targets as dars_targets
    from demur.data.builders.dart import difficulty_aware_sampling as difficulty_aware_sampling
    from demur.data.builders.dart import estimate_fail_rate as estimate_fail_rate
    from demur.data.builders.dart import vanilla_rejection_sampling as vanilla_rejection_sampling
    from demur.data.builders.derta import derta_rows as derta_rows
    from demur.data.builders.draws import open_draws as open_draws
    from demur.data.builders.honest import build_curriculum as build_curriculum
    from demur.data.builders.lingo_bp import LingoBP as LingoBP
    from demur.data.builders.lingo_bp import SafetyVerdict as SafetyVerdict
    from demur.data.builders.lingo_bp import Trajectory as Trajectory
    from demur.data.builders.lingo_bp import UserVerdict as UserVerdict
    from demur.data.builders.lingo_bp import trajectories_to_preferences as trajectories_to_preferences
    from demur.data.builders.lingo_bp import trajectories_to_sft as trajectories_to_sft
    from demur.data.builders.r_tuning import KnowledgeSplit as KnowledgeSplit
    from demur.data.builders.r_tuning import r_tuning_rows as r_tuning_rows
    from demur.data.builders.r_tuning import split_by_entropy as split_by_entropy
    from demur.data.builders.r_tuning import split_by_knowledge as split_by_knowledge
    from demur.data.builders.refusal_tokens import RefusalTokenConfig as RefusalTokenConfig
    from demur.data.builders.refusal_tokens import refusal_token_config as refusal_token_config
    from demur.data.builders.refusal_tokens import refusal_token_rows as refusal_token_rows
    from demur.data.builders.safety_chain import SafetyChain as SafetyChain
    from demur.data.builders.stackelberg import Candidate as Candidate
    from demur.data.builders.stackelberg import NextTurn as NextTurn
    from demur.data.builders.stackelberg import StackelbergSelector as StackelbergSelector
    from demur.data.builders.stackelberg import pearl_point as pearl_point
    from demur.data.builders.text_editor import TextEditor as TextEditor
    from demur.data.columns import dataset_from_rows as dataset_from_rows
    from demur.data.honeset import load_honeset as load_honeset
    from demur.data.muse import completion_rows as completion_rows
    from demur.data.muse import muse_split as muse_split
    from demur.data.muse import write_muse as write_muse
    from demur.data.readers import check_rows as check_rows
    from demur.data.readers import read_lines as read_lines
    from demur.data.readers import read_rows as read_rows
    from demur.data.rows import ChoiceRow as ChoiceRow
    from demur.data.rows import Example as Example
    from demur.data.rows import Message as Message
    from demur.data.rows import Prompt as Prompt
    from demur.data.rows import TofuRow as TofuRow
    from demur.data.rows import is_text as is_text
    from demur.data.rows import question_answer as question_answer
    from demur.data.rows import row_texts as row_texts
    from demur.data.rows import rows_hash as rows_hash
    from demur.data.safe_eraser import safe_eraser_split as safe_eraser_split
    from demur.data.splits import find_overlap as find_overlap
    from demur.data.splits import require_disjoint as require_disjoint
    from demur.data.tofu import tofu_split as tofu_split
    from demur.data.wmdp import read_choices as read_choices
    from demur.data.wmdp import wmdp_set as wmdp_set
    from demur.data.writers import write_rows as write_rows

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "ABSTENTIONS": "abstentions",
        "Batch": "batch",
        "Candidate": "builders.stackelberg",
        "ChoiceRow": "rows",
        "Encoded": "batch",
        "Example": "rows",
        "KnowledgeSplit": "builders.r_tuning",
        "LingoBP": "builders.lingo_bp",
        "Message": "rows",
        "NextTurn": "builders.stackelberg",
        "Prompt": "rows",
        "RefusalTokenConfig": "builders.refusal_tokens",
        "SafetyChain": "builders.safety_chain",
        "SafetyVerdict": "builders.lingo_bp",
        "StackelbergSelector": "builders.stackelberg",
        "TextEditor": "builders.text_editor",
        "TofuRow": "rows",
        "Trajectory": "builders.lingo_bp",
        "UserVerdict": "builders.lingo_bp",
        "build_curriculum": "builders.honest",
        "check_answer": "answer_checker",
        "check_rows": "readers",
        "collate": "batch",
        "completion_rows": "muse",
        "dars_targets": "builders.dart",
        "dataset_from_rows": "columns",
        "difficulty_aware_sampling": "builders.dart",
        "estimate_fail_rate": "builders.dart",
        "derta_rows": "builders.derta",
        "find_overlap": "splits",
        "is_text": "rows",
        "load_honeset": "honeset",
        "muse_split": "muse",
        "open_draws": "builders.draws",
        "pearl_point": "builders.stackelberg",
        "question_answer": "rows",
        "r_tuning_rows": "builders.r_tuning",
        "read_choices": "wmdp",
        "read_lines": "readers",
        "read_rows": "readers",
        "refusal_token_config": "builders.refusal_tokens",
        "refusal_token_rows": "builders.refusal_tokens",
        "require_disjoint": "splits",
        "row_texts": "rows",
        "rows_hash": "rows",
        "safe_eraser_split": "safe_eraser",
        "split_by_entropy": "builders.r_tuning",
        "split_by_knowledge": "builders.r_tuning",
        "tofu_split": "tofu",
        "trajectories_to_preferences": "builders.lingo_bp",
        "trajectories_to_sft": "builders.lingo_bp",
        "write_rows": "writers",
        "vanilla_rejection_sampling": "builders.dart",
        "wmdp_set": "wmdp",
        "write_muse": "muse",
    },
)
