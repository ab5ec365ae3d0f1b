"""Runs converted models."""

from ai_edge_litert.interpreter import Interpreter


def outputs(model, *inputs):
    """The dequantized outputs of LiteRT for one sample."""
    interpreter = Interpreter(model_content=model.content)
    interpreter.allocate_tensors()
    for index, (detail, x) in enumerate(zip(interpreter.get_input_details(), inputs, strict=True)):
        interpreter.set_tensor(detail["index"], model.quantize_input(x, index))
    interpreter.invoke()
    details = enumerate(interpreter.get_output_details())
    return [model.dequantize_output(interpreter.get_tensor(detail["index"]), index) for index, detail in details]
