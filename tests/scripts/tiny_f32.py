"""A copy of a GGUF file with all its weights in F32."""
import gguf
from gguf import GGMLQuantizationType, quants


def write(source, target):
    reader = gguf.GGUFReader(source)
    w = gguf.GGUFWriter(str(target), reader.get_field("general.architecture").contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            w.add_key_value(name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        w.add_tensor(tensor.name, quants.dequantize(tensor.data, tensor.tensor_type), raw_dtype=GGMLQuantizationType.F32)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file()
    w.close()
    return target
