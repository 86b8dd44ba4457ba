//! NIM's image retrieval: what is seen on pages, as boxes.

use super::fields::Fields;
use super::{Ready, Request};
use crate::serve::errors::Refused;
use crate::serve::world::World;
use serde_json::json;

/// `/v1/infer`.
pub(in crate::serve) fn infer(request: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    let fields = Fields::read(request)?;
    fields.model(world)?;
    let input = fields.list("input")?;
    if input.is_empty() {
        return Err(Refused::bad("input is empty"));
    }
    let (mut data, mut bytes) = (Vec::new(), 0);
    for (index, item) in input.iter().enumerate() {
        let url = item["url"].as_str().filter(|url| !url.is_empty() && item["type"] == "image_url");
        bytes += url.ok_or_else(|| Refused::bad(format!("input[{index}] is no image_url with a url")))?.len();
        let boxed = json!({"x_min": 0.1, "y_min": 0.1, "x_max": 0.9, "y_max": 0.4, "confidence": 0.95});
        data.push(json!({"index": index, "bounding_boxes": {"table": [boxed], "chart": [], "title": []}}));
    }
    let usage = json!({"images_size_mb": bytes as f64 / 1e6});
    Ok(Ready::json(&json!({"data": data, "usage": usage}), 0))
}
