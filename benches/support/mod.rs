//! What the benches share: images, noisy queries and components of CIFAR-10's shape.

use ndarray::{Array3, Array4, ArrayView4};
use pspc_rs::Components;

/// Height and width.
pub(crate) const SIDE: usize = 32;

/// Waves of random direction and phase: smooth like photographs, all different.
pub(crate) fn waves(n: usize) -> Array4<u8> {
    Array4::from_shape_fn((n, 3, SIDE, SIDE), |(n, c, y, x)| {
        let (a, b, phase) = ((n * 7919 % 97) as f32, (n * 104_729 % 89) as f32, (n * 31 % 61 + 2 * c) as f32);
        let wave = (0.006 * (a * x as f32 + b * y as f32) + phase).sin() + 0.3 * (0.2 * (x + y) as f32 + a).cos();
        (127.5 + 90.0 * wave).clamp(0.0, 255.0) as u8
    })
}

/// Images plus normal noise (a sum of twelve uniforms).
pub(crate) fn noisy(images: ArrayView4<'_, u8>, queries: usize, sigma: f64) -> Array4<f32> {
    let mut seed = 1_u32;
    let mut uniform = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(seed >> 8) / f64::from(1 << 24)
    };
    let step = (images.dim().0 / queries).max(1);
    Array4::from_shape_fn((queries, 3, SIDE, SIDE), |(q, c, y, x)| {
        let normal = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        let clean = images[[q * step % images.dim().0, c, y, x]];
        (f64::from(clean) / 127.5 - 1.0 + sigma * normal) as f32
    })
}

/// Discs around every pixel, as thresholded heat maps are.
pub(crate) fn discs(radius: f64) -> Components {
    let masks = Array3::from_shape_fn((SIDE * SIDE, SIDE, SIDE), |(k, y, x)| {
        let square = (k / SIDE).abs_diff(y).pow(2) + (k % SIDE).abs_diff(x).pow(2);
        square as f64 <= radius * radius
    });
    Components::masks(masks.view()).expect("discs cover the image")
}

/// Squares of a side, or the full image.
pub(crate) fn components(side: usize) -> Components {
    Components::square(SIDE, SIDE, side).expect("fits")
}
