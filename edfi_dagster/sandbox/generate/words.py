"""Invented names for people, places and courses."""

from __future__ import annotations

_FEMALE = (
    "Abigail Adaeze Aisha Alma Amara Ana Beatriz Briar Camila Chloe Clara Daniela Elena Esme Fatima Freya "
    "Gabriela Hana Harper Ines Ivy Jada Juniper Kavya Layla Leilani Lucia Mai Maren Mei Nadia Naomi Nora Odette "
    "Olivia Paloma Priya Quinn Rosa Ruth Sadie Selah Sofia Tamar Thea Uma Vera Willa Ximena Yara Zoe"
)
_MALE = (
    "Aaron Abel Adrian Amir Andre Arlo Bashir Beau Caleb Cyrus Dante Diego Eli Emeka Ezra Felix Finn Gael "
    "Gideon Hugo Ibrahim Isaac Jalen Jonas Jude Kai Kenji Leo Luca Malik Mateo Miles Nico Noah Omar Oscar Pax "
    "Rafael Ravi Rowan Samir Silas Soren Tariq Theo Tomas Uriel Victor Wade Xavier Yusuf Zane"
)
_LAST_NAMES = (
    "Abara Acosta Adler Ahmed Alvarez Ames Baptiste Barros Becker Bellamy Boateng Brandt Calder Castillo Chen Cho "
    "Colby Contreras Cruz Dalton Dang Delgado Dempsey Diaz Duarte Easton Ekberg Farah Fields Flores Fontaine Gaines "
    "Garza Gibson Gupta Hale Hanson Haddad Hernandez Holt Huang Ibarra Iqbal Jansen Jimenez Johansen Kamara Kaur Keane "
    "Khan Kim Kowalski Lam Landry Larkin Lopez Lowell Luna Maddox Marin Mensah Mercer Mohamed Monroe Morales Nakai "
    "Navarro Nguyen Nolan Nunez Oakes Obi Okafor Ortega Osman Paige Park Patel Pena Pham Quintero Ramos Reyes Rhodes "
    "Rivera Romero Rosales Saito Salas Santos Sato Schaefer Shah Sims Singh Solis Tanaka Thao Tobin Torres Tran Vang "
    "Vasquez Vega Villa Wade Walsh Ward Webb West Whitfield Xiong Yang Yilmaz Young Zamora Zhao Zimmer"
)
_STREETS = "Alder Birch Cedar Dogwood Elm Fir Hawthorn Juniper Linden Maple Oak Pecan Quince Sumac Willow"
_PLACES = (
    "Ashgrove Brookside Cottonwood Driftwood Eastgate Fairmeadow Glenhollow Highpoint Ironbridge Kingfisher "
    "Longacre Millrace Northfork Orchard Pinecrest Quarry Ridgeway Stonebrook Tanager Underhill Vinewood Westlake"
)

FIRST_NAMES = {"Female": tuple(_FEMALE.split()), "Male": tuple(_MALE.split())}
LAST_NAMES = tuple(_LAST_NAMES.split())
STREETS = tuple(_STREETS.split())
PLACES = tuple(_PLACES.split())
# (code, title, academic subject, credits) by school level
COURSES = {
    "Elementary": (
        ("ELA-E", "Elementary English Language Arts", "English Language Arts", 0.0),
        ("MTH-E", "Elementary Mathematics", "Mathematics", 0.0),
        ("SCI-E", "Elementary Science", "Science", 0.0),
        ("SOC-E", "Elementary Social Studies", "Social Studies", 0.0),
        ("ART-E", "Elementary Art", "Fine and Performing Arts", 0.0),
        ("PED-E", "Elementary Physical Education", "Physical, Health, and Safety Education", 0.0),
    ),
    "Middle": (
        ("ELA-M", "Reading and Composition", "English Language Arts", 1.0),
        ("MTH-M", "Pre-Algebra", "Mathematics", 1.0),
        ("SCI-M", "Earth and Space", "Science", 1.0),
        ("SOC-M", "State History", "Social Studies", 1.0),
        ("SPA-M", "Exploring Spanish", "Foreign Language and Literature", 0.5),
        ("PED-M", "Health and Fitness", "Physical, Health, and Safety Education", 0.5),
    ),
    "High": (
        ("ENG-H", "Composition and Literature", "English", 1.0),
        ("ALG-H", "Algebra I", "Algebra I", 1.0),
        ("BIO-H", "Biology", "Biology", 1.0),
        ("USH-H", "United States History", "Social Studies", 1.0),
        ("SPA-H", "Spanish I", "Foreign Language and Literature", 1.0),
        ("CTE-H", "Introduction to Computing", "Career and Technical Education", 0.5),
    ),
}
GRADES = (
    "Kindergarten", "First grade", "Second grade", "Third grade", "Fourth grade", "Fifth grade", "Sixth grade",
    "Seventh grade", "Eighth grade", "Ninth grade", "Tenth grade", "Eleventh grade", "Twelfth grade",
)  # fmt: skip
LEVEL_GRADES = {"Elementary": GRADES[:6], "Middle": GRADES[6:9], "High": GRADES[9:]}
LEVEL_OF_GRADE = {grade: level for level, grades in LEVEL_GRADES.items() for grade in grades}
