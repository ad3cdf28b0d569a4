# SPDX-License-Identifier: Apache-2.0
"""How far the driver scales: inputs, model, simulation, measured points.

    PYTHONPATH=tools python -m scaling

writes the tables and plots of ``doc/source/admin/scaling.rst`` anew.
"""
