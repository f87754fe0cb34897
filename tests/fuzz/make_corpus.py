"""Write the seeds of the fuzz target: small files of each kind that the decoder reads, and of kinds that it declines."""
import io, sys
from pathlib import Path
import numpy as np
from PIL import Image
folder=Path(sys.argv[1]); folder.mkdir(exist_ok=True)
rng=np.random.default_rng(0)
def picture(h,w,noise):
    coarse=Image.fromarray(rng.integers(0,256,(3,4,3)).astype(np.uint8)).resize((w,h))
    return Image.fromarray((np.asarray(coarse)+rng.normal(0,noise,(h,w,3))).clip(0,255).astype(np.uint8))
def save(name,image,choices=(0,0,0,255,255),**o):
    s=io.BytesIO(); image.save(s,"JPEG",**o); (folder/name).write_bytes(bytes(choices)+s.getvalue())
n=0
for sub in ("4:4:4","4:2:2","4:2:0"):
    for restarts in (0,2):
        o={"restart_marker_blocks":restarts} if restarts else {}
        save(f"{sub.replace(':','')}-{restarts}",picture(19,37,10),(n,60,90,128,128),subsampling=sub,quality=85,optimize=True,**o); n+=1
save("grey",picture(24,17,20).convert("L"),(1,0,0,255,255),quality=90,optimize=True)
save("grey-restarts",picture(9,30,20).convert("L"),(2,0,0,255,255),quality=50,restart_marker_blocks=1)
save("noise",picture(16,16,200),(0,0,0,255,255),quality=100,subsampling="4:2:0")
save("flat",Image.new("RGB",(33,18),(200,90,10)),(3,0,0,255,255),optimize=True)
save("rgb",picture(9,9,9),keep_rgb=True,optimize=True)
save("exif",picture(9,9,9),(0,10,10,99,99),optimize=True,comment=b"comment",exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")
save("progressive",picture(9,9,9),progressive=True)
