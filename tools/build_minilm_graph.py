"""Build the graphs of all-MiniLM-L6-v2 without weights: ``clients/minilm*.onnx``, about 10 kB each.

The weights are handed in at load (``SessionOptions.add_external_initializers``), so the graph names them
and their shapes only. The network is BERT (Devlin et al., 2019) with 6 layers, 12 heads and 384 channels,
then the mean over the tokens, then length 1, as sentence-transformers computes it. Run it after a change,
and commit the files:

    python tools/build_minilm_graph.py
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

CHANNELS = 384
HEADS = 12
LAYERS = 6
INNER = 1536
VOCABULARY = 30522
POSITIONS = 256
EPSILON = 1e-12
MICROSOFT = "com.microsoft"
FOLDER = Path(__file__).resolve().parent.parent / "era_ingest" / "clients"


class GraphBuilder:
    """Collects nodes and the names of weights.

    Args:
        int8: Matrices as int8 with a scale a column, inputs quantised as they come; else float32.
    """

    def __init__(self, *, int8: bool) -> None:
        self._int8 = int8
        self._nodes: list[onnx.NodeProto] = []
        self._constants = [
            helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("two", TensorProto.INT64, [1], [2]),
        ]

    def weight(self, name: str, *shape: int, kind: int = TensorProto.FLOAT) -> str:
        """Declare a weight that is handed in at load; return its name."""
        tensor = TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="weights")
        self._constants.append(tensor)
        return name

    def node(self, kind: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: float) -> str:
        """Add an operation; return the name of its first output."""
        made = helper.make_node(kind, inputs, list(outputs), domain=domain)
        made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(made)
        return outputs[0]

    def matrix(self, source: str, name: str, inputs: int, outputs: int) -> str:
        """Multiply by a matrix, without its bias."""
        if not self._int8:
            weight = self.weight(f"{name}.weight", inputs, outputs)
            return self.node("MatMul", [source, weight], f"{name}.product")
        weight = self.weight(f"{name}.weight", inputs, outputs, kind=TensorProto.INT8)
        scale = self.weight(f"{name}.scale", outputs)
        return self.node(
            "DynamicQuantizeMatMul", [source, weight, scale], f"{name}.product", domain=MICROSOFT
        )

    def attention(self, source: str, layer: str) -> str:
        """Attend over the tokens of the same text that are no padding."""
        if not self._int8:
            weight = self.weight(f"{layer}.qkv.weight", CHANNELS, 3 * CHANNELS)
            bias = self.weight(f"{layer}.qkv.bias", 3 * CHANNELS)
            inputs = [source, weight, bias, "attention_mask"]
            return self.node("Attention", inputs, f"{layer}.context", domain=MICROSOFT, num_heads=HEADS)
        product = self.matrix(source, f"{layer}.qkv", CHANNELS, 3 * CHANNELS)
        parts = [f"{layer}.query", f"{layer}.key", f"{layer}.value"]
        self.node("Split", [product], *parts, axis=-1)
        inputs = [*parts, self.weight(f"{layer}.qkv.bias", 3 * CHANNELS), "attention_mask"]
        return self.node("MultiHeadAttention", inputs, f"{layer}.context", domain=MICROSOFT, num_heads=HEADS)

    def add_and_norm(self, source: str, skipped: str, bias: str, name: str) -> str:
        """Add a product, its bias and the layer's input; normalise."""
        inputs = [
            source,
            skipped,
            self.weight(f"{name}.weight", CHANNELS),
            self.weight(f"{name}.bias", CHANNELS),
            self.weight(bias, CHANNELS),
        ]
        return self.node(
            "SkipLayerNormalization", inputs, f"{name}.output", domain=MICROSOFT, epsilon=EPSILON
        )

    def layer(self, source: str, layer: str) -> str:
        """Add one layer of the encoder."""
        context = self.attention(source, layer)
        attended = self.matrix(context, f"{layer}.attended", CHANNELS, CHANNELS)
        middle = self.add_and_norm(attended, source, f"{layer}.attended.bias", f"{layer}.norm1")
        inner = self.matrix(middle, f"{layer}.inner", CHANNELS, INNER)
        active = self.node(
            "BiasGelu",
            [inner, self.weight(f"{layer}.inner.bias", INNER)],
            f"{layer}.active",
            domain=MICROSOFT,
        )
        outer = self.matrix(active, f"{layer}.outer", INNER, CHANNELS)
        return self.add_and_norm(outer, middle, f"{layer}.outer.bias", f"{layer}.norm2")

    def embed_tokens(self) -> str:
        """Add up the embeddings of token and place (which holds the token type's), and normalise."""
        words = self.node("Gather", [self.weight("words", VOCABULARY, CHANNELS), "input_ids"], "word", axis=0)
        self.node("Shape", ["input_ids"], "shape")
        self.node("Slice", ["shape", "one", "two"], "length")
        places = self.weight("places", POSITIONS, CHANNELS)
        self.node("Slice", [places, "zero", "length", "zero"], "place")
        summed = self.node("Add", [words, "place"], "tokens")
        inputs = [summed, self.weight("norm.weight", CHANNELS), self.weight("norm.bias", CHANNELS)]
        return self.node("LayerNormalization", inputs, "norm.output", axis=-1, epsilon=EPSILON)

    def pool(self, source: str) -> None:
        """Sum over the tokens that are no padding; bring to length 1, which makes sum and mean the same."""
        self.node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        self.node("Unsqueeze", ["mask", "one"], "mask_row")
        self.node("MatMul", ["mask_row", source], "sum_row")
        self.node("Squeeze", ["sum_row", "one"], "sum")
        self.node("LpNormalization", ["sum"], "embedding", axis=-1, p=2)

    def build(self) -> onnx.ModelProto:
        """Return the model."""
        states = self.embed_tokens()
        for number in range(LAYERS):
            states = self.layer(states, f"layer{number}")
        self.pool(states)
        inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "tokens"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT32, ["texts", "tokens"]),
        ]
        output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["texts", CHANNELS])
        graph = helper.make_graph(self._nodes, "all-MiniLM-L6-v2", inputs, [output], self._constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="era_ingest")


def main() -> None:
    """Write both graphs."""
    for name, int8 in (("minilm.onnx", False), ("minilm-int8.onnx", True)):
        raw = GraphBuilder(int8=int8).build().SerializeToString(deterministic=True)
        (FOLDER / name).write_bytes(raw)
        print(f"{name}: {len(raw):,} bytes")


if __name__ == "__main__":
    main()
