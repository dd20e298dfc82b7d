"""One row of a table of references: what a network makes of its input."""
import torch


def of_timm(model, images):
    """Logits and features of a timm network."""
    with torch.inference_mode():
        maps = model.forward_features(images)
        return model.forward_head(maps), model.forward_head(maps, pre_logits=True)


def row(source, name, model, shapes, images, logits, features, **details):
    """The row as `json.dumps` takes it; `shapes` are those of the state dict, `details` what else the reader needs to know."""
    return {
        "source": source, "model": name, "input": list(images.shape), **details,
        "parameters": sum(p.numel() for p in model.parameters()), "tensors": len(shapes),
        "classes": logits.shape[1], "feature_dim": features.shape[1],
        "logits_head": [r[:16].tolist() for r in logits], "logits_l2": [float(r.double().norm()) for r in logits],
        "argmax": logits.argmax(1).tolist(),
        "features_head": [r[:16].tolist() for r in features], "features_l2": [float(r.double().norm()) for r in features],
    }
