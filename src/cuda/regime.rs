//! `Regime`: how the energies of a query are summed and which route it takes, by its noise level; as on the CPU.

/// From this sigma on, in units of the data's largest magnitude, the expanded form has the smaller error
/// (docs/accuracy.md).
const EXPANDED_FROM: f64 = 0.5;

/// Below this sigma, in units of the data's largest magnitude, few images carry weight.
const SPARSE_BELOW: f64 = 0.1;

/// Candidates may always be as many as this per query.
const MIN_CANDIDATES: usize = 1 << 10;

/// Most candidates per query: more would cost more than the dense passes.
const MAX_CANDIDATES: usize = 1 << 18;

/// Most pixels of all candidates of a query, between the two limits above.
const MAX_CANDIDATE_PIXELS: usize = 1 << 24;

/// How the energy of an image is summed, with `a` a centred pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EnergyForm {
    /// `(a - z)^2`
    Direct,
    /// `a^2 - 2 z a`: the squared distance less the constant `z^2`.
    Expanded,
}

/// The form of the energy, and whether the few images that carry weight are looked for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Regime {
    pub(super) form: EnergyForm,
    pub(super) sparse: bool,
}

impl Regime {
    /// Every regime.
    pub(super) const ALL: [Self; 3] = [
        Self { form: EnergyForm::Expanded, sparse: false },
        Self { form: EnergyForm::Direct, sparse: false },
        Self { form: EnergyForm::Direct, sparse: true },
    ];

    /// The regime of a noise level for data of this largest magnitude.
    pub(super) fn at(sigma: f64, max_abs: f64) -> Self {
        let form = if sigma >= EXPANDED_FROM * max_abs { EnergyForm::Expanded } else { EnergyForm::Direct };
        Self { form, sparse: sigma < SPARSE_BELOW * max_abs }
    }
}

/// Weights below `2^-cutoff_bits` of the largest are left out: those of all `images` and their flips together then stay
/// below `2^-20` of it.
pub(super) fn cutoff_bits(images: usize) -> f64 {
    20.0 + (2.0 * images as f64).log2()
}

/// Most candidates listed for a query whose windows have `window_pixels` pixels on average.
pub(super) fn max_candidates(window_pixels: usize) -> usize {
    (MAX_CANDIDATE_PIXELS / window_pixels).clamp(MIN_CANDIDATES, MAX_CANDIDATES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Bank;
    use crate::cpu::probe::Probe;
    use ndarray::Array4;

    #[test]
    fn regimes_are_those_of_the_cpu() {
        let images = Array4::<u8>::zeros((1, 1, 1, 1));
        let bank = Bank::from_u8(images.view()).unwrap();
        let windows = crate::windows::Windows::full(1, 1).unwrap();
        let z = ndarray::Array3::<f64>::zeros((1, 1, 1));
        for sigma in [1e-6, 0.099, 0.1, 0.11, 0.499, 0.5, 0.51, 80.0] {
            let probe = Probe::new(&bank, &windows, z.view(), sigma, 0, false);
            let form = if probe.expanded { EnergyForm::Expanded } else { EnergyForm::Direct };
            let regime = Regime { form, sparse: probe.sparse };
            assert_eq!(Regime::at(sigma, bank.reach()), regime);
            assert!(Regime::ALL.contains(&regime));
        }
    }
}
