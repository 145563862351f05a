"""Black-box attacks by changes that preserve behaviour, under a query budget."""

from distill.evaluation.attacks.budget import Attacked, attack, curve
from distill.evaluation.attacks.search import METHODS, Method
from distill.evaluation.attacks.spaces import CodeSpace, Space, TextSpace

__all__ = ["METHODS", "Attacked", "CodeSpace", "Method", "Space", "TextSpace", "attack", "curve"]
