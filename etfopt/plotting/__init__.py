"""Pictures: training runs, comparisons of solvers, class means and their nearest ETF.

Every function draws on axes or on a figure that it is given, or makes them, and returns the axes. None looks at
anything global, so that two figures can be drawn at once; `save` writes a picture, and in a notebook
``plt.rcParams.update(STYLE)`` gives the figures of one page the same look. Colours are those that colour-blind readers
tell apart; dashes and markers tell the same things apart in print.
"""

from etfopt.errors import require_extra

# before the imports below, so that a missing extra is named and not a module
require_extra("plots", "matplotlib")

from etfopt.plotting._style import COLORS, STYLE, save
from etfopt.plotting.codes import draw_code, draw_cosine_histogram
from etfopt.plotting.frames import cosines, draw_frame, draw_matrix
from etfopt.plotting.growth import draw_growth
from etfopt.plotting.layers import draw_layers, layer_values
from etfopt.plotting.pipelines import draw_pipelines
from etfopt.plotting.profiles import draw_profile, draw_profile_page
from etfopt.plotting.ratios import draw_ratios
from etfopt.plotting.runs import PANELS, draw_margins, draw_measure, draw_off_diagonal, draw_page
from etfopt.plotting.sessions import draw_session_page, draw_sessions
from etfopt.plotting.solvers import draw_convergence, draw_convergence_page, solver_styles

__all__ = [
    "COLORS",
    "PANELS",
    "STYLE",
    "cosines",
    "draw_code",
    "draw_convergence",
    "draw_convergence_page",
    "draw_cosine_histogram",
    "draw_frame",
    "draw_growth",
    "draw_layers",
    "draw_margins",
    "draw_matrix",
    "draw_measure",
    "draw_off_diagonal",
    "draw_page",
    "draw_pipelines",
    "draw_profile",
    "draw_profile_page",
    "draw_ratios",
    "draw_session_page",
    "draw_sessions",
    "layer_values",
    "save",
    "solver_styles",
]
