//! `Filter`: components whose distances and answers weigh pixels differently.

use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::filter::{Filter as CoreFilter, Rows, View, Weights as CoreWeights};

/// The weights of values for every component.
#[pyclass(frozen, module = "pspc_rs._core")]
pub(super) struct Weights {
    core: CoreWeights,
    per_value: bool,
}

#[pymethods]
impl Weights {
    /// A square of an odd side around every pixel, which goes on at the opposite border or is cut there.
    #[staticmethod]
    fn boxes(side: usize, wraps: bool) -> Self {
        Self { core: CoreWeights::Boxes { side, wraps }, per_value: false }
    }

    /// Around every pixel the products `taps[|dy|] taps[|dx|]`, cut at the border.
    #[staticmethod]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn taps(taps: PyReadonlyArray1<'_, f64>) -> Self {
        Self { core: CoreWeights::Taps(taps.as_array().to_vec()), per_value: false }
    }

    /// Every pixel, or every value, alone.
    #[staticmethod]
    fn places(per_value: bool) -> Self {
        Self { core: CoreWeights::Places, per_value }
    }

    /// A row of weights of pixels, or of values, for every component.
    #[staticmethod]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn rows(rows: PyReadonlyArray2<'_, f64>, per_value: bool) -> PyResult<Self> {
        let rows = rows.as_array();
        let values: Vec<f64> = rows.iter().copied().collect();
        Ok(Self { core: CoreWeights::Rows(Rows::new(rows.ncols(), &values)?), per_value })
    }
}

/// Components with a query precision and response weights, over views of the images.
#[pyclass(frozen, module = "pspc_rs._core")]
pub(super) struct Filter {
    pub(super) core: CoreFilter,
}

#[pymethods]
impl Filter {
    /// Of images `[channels, height, width]`. `views` `[views, pixels]` say which pixel of the image lies at every pixel,
    /// -1 for none; `seen_by` `[views, components]` which components see them.
    #[new]
    #[pyo3(signature = (shape, precision, response, views, seen_by=None))]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn new(
        shape: [usize; 3],
        precision: PyRef<'_, Weights>,
        response: PyRef<'_, Weights>,
        views: PyReadonlyArray2<'_, i32>,
        seen_by: Option<PyReadonlyArray2<'_, u8>>,
    ) -> PyResult<Self> {
        let from = |row: ndarray::ArrayView1<'_, i32>| -> Vec<u32> {
            row.iter().map(|&pixel| u32::try_from(pixel).unwrap_or(View::NONE)).collect()
        };
        let seen_by = seen_by.as_ref().map(PyReadonlyArray2::as_array);
        let seen = |view: usize| {
            let row = seen_by.filter(|seen| view < seen.nrows())?.row(view).to_vec();
            Some(row.into_iter().map(|seen| seen != 0).collect())
        };
        let views = views.as_array().outer_iter().enumerate().map(|(view, row)| (from(row), seen(view))).collect();
        let weights = [precision.core.clone(), response.core.clone()];
        let core = CoreFilter::new(shape, weights, [precision.per_value, response.per_value], views)?;
        Ok(Self { core })
    }

    fn __repr__(&self) -> String {
        let ([_, height, width], count, views) = (self.core.shape(), self.core.count(), self.core.views());
        format!("<Filter: {count} components over {views} views of {height} x {width}>")
    }
}
