"""The PyTorch bridge: a differentiable nearest ETF, running class means, and classifier heads.

The table shows which modes work. "right" is the eager value or derivative, whichever the mode gives; "error" is an
exception, before any state has changed but for checkpoint. The tests run every cell, and compile with the backend
"aot_eager". The columns are the node (`nearest_etf`, `polar_factor`, with weights and held classes) by any method, by
products alone (``method="newton-schulz"``), the distance (`etf_distance`, `ETFDistance`), the three heads in
evaluation, and each head in training; `ClassMeans` in training is like the nearest head.

==============================  =====  ========  ========  =====  =======  =====  =======
mode                            node   products  distance  eval   learned  fixed  nearest
==============================  =====  ========  ========  =====  =======  =====  =======
eager                           right  right     right     right  right    right  right
autocast                        right  right     right     right  right    right  right
inference_mode                  right  right     right     right  right    right  right
double backward                 right  right     right     right  right    right  right
compile                         right  right     right     right  right    right  right
compile, fullgraph              right  right     right     right  right    error  error
func.grad                       right  right     right     right  error    error  error
func.jacrev                     right  right     right     right  error    error  error
func.jacfwd                     right  right     right     right  error    error  error
func.jvp                        right  right     right     right  error    error  error
func.hessian                    right  right     right     right  error    error  error
func.vmap                       right  right     right     right  right    error  error
compile of func.grad            right  right     right     right  error    error  error
compile of func.jvp             right  right     right     right  error    error  error
compile of func.hessian         right  right     right     right  error    error  error
compile, dual numbers           right  right     right     right  error    right  right
checkpoint, reentrant           right  right     right     right  right    error  error
checkpoint, not reentrant       right  right     right     right  right    error  error
export                          right  right     right     right  error    error  error
jit.trace                       right  right     right     right  right    error  error
==============================  =====  ========  ========  =====  =======  =====  =======

Forward mode and derivatives of derivatives run uncompiled, and are an error with ``fullgraph=True``. Products alone
are compiled there too; only dual numbers from outside leave the graph. A compiled graph is differentiable once.
Forward mode of forward mode, such as ``jacfwd(jacfwd(f))``, is an error: take ``torch.func.hessian``. Under
checkpoint the fixed and the nearest head have updated their state when the second run raises: checkpoint the backbone
only. With ``statistics="paper"`` the fixed head is right there. Which training loops and trainers work is a table of
its own, in ``docs/howto/training_loops.md``.
"""

from etfopt.errors import require_extra

require_extra("torch", "torch")

from etfopt._options import collapse_temperature, frame_temperature
from etfopt.nn.class_means import ClassMeans
from etfopt.nn.distance import ETFDistance
from etfopt.nn.heads import FixedETFHead, LearnedHead, NearestETFHead, UnitFeatures
from etfopt.nn.paper_means import PaperClassMeans

__all__ = [
    "ClassMeans",
    "ETFDistance",
    "FixedETFHead",
    "LearnedHead",
    "NearestETFHead",
    "PaperClassMeans",
    "UnitFeatures",
    "collapse_temperature",
    "frame_temperature",
]
