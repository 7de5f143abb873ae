//! `RankEvidence`: pass 1 on one of several ranks of the images.

use numpy::{IntoPyArray, PyArray2, PyArray4, PyReadonlyArray2};
use pyo3::prelude::*;

use super::bank::{Bank, check_aligned};
use super::calls::monitored;
use crate::rank_evidence::RankEvidence as Core;

/// What pass 1 found for a batch of queries on one of several ranks; made by `Engine.rank_evidence`.
#[pyclass(frozen, module = "pspc_rs._core")]
pub(super) struct RankEvidence {
    bank: Py<Bank>,
    core: Core,
}

#[pymethods]
impl RankEvidence {
    /// The logarithm of the sum of weights over the images of the rank, `[batch, windows]`.
    #[getter]
    fn log_evidence<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray2<f64>> {
        self.core.log_evidence().clone().into_pyarray(py)
    }

    /// What the images of the rank add to the composites `[batch, channels, height, width]`, of all of whose weights they have
    /// shares with the logarithms `log_shares` `[batch, windows]`.
    #[pyo3(signature = (log_shares, progress=None))]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn contribution<'py>(
        &self,
        py: Python<'py>,
        log_shares: PyReadonlyArray2<'py, f64>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray4<f64>>> {
        check_aligned(log_shares.as_any())?;
        let shares = log_shares.as_array();
        let pixels = self.bank.get().borrow(py)?;
        let bank = self.bank.get().view(&pixels)?;
        Ok(monitored(py, progress, |monitor| self.core.contribution(&bank, shares, monitor))?.into_pyarray(py))
    }

    fn __repr__(&self) -> String {
        let (queries, windows) = self.core.log_evidence().dim();
        format!("<RankEvidence of {queries} queries on {windows} windows>")
    }
}

impl RankEvidence {
    pub(super) fn new(bank: Py<Bank>, core: Core) -> Self {
        Self { bank, core }
    }
}
